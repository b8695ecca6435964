"""What an image's backend does on a card: generation, dtype, quantisation kernel, attention, each with a source. Pure.

Facts of compatibility.md, sections 2.6, 2.7 and 6, read in the sources of each version.
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from images.core import NoImageFits
from images.matrix import Arch, Variant
from images.run.fit.families import KNOWN
from images.run.fit.forms import CPU_SOURCE, KERNELS, Kernel, kernel_for, why_none, why_not_on_a_cpu
from images.run.fit.model import Model


@dataclass(frozen=True)
class Setting:
    """One setting, why it is so, and who says so."""

    name: str
    value: str
    why: str
    source: str


@dataclass(frozen=True)
class CardBackend:
    """A backend on a card. ``dtype`` is "float16" or "bfloat16"; ``kernel`` computes quantised linears ("" for none).

    ``chunked``: prompts are taken in pieces (vLLM's V1), else a prompt is one piece (V0 with pictures, transformers).
    ``unpacks``: the kernel makes a whole 16-bit matrix of a 4-bit one first. ``flags`` and
    ``environment`` are beyond the image's own.
    """

    name: str
    version: Version
    arch: Arch
    dtype: str
    kernel: str
    chunked: bool
    unpacks: bool
    flags: tuple[str, ...]
    choices: tuple[Setting, ...]
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def vllm(self) -> bool:
        """Whether it is vLLM, not the server on transformers."""
        return self.name == "vllm"

    @property
    def vision_attention(self) -> str:
        """Who computes the vision tower's attention, such as "XFORMERS"."""
        return next((one.value for one in self.choices if one.name == "vision attention"), "")

    @property
    def vision_bytes(self) -> int:
        """Bytes of a number in the vision tower: 4 where transformers keeps it in float32."""
        return 4 if not self.vllm and self.dtype == "float16" and self.arch < Arch(8, 0) else 2


def backend_for(model: Model, variant: Variant, arch: Arch) -> CardBackend:
    """How ``variant`` serves ``model`` on cards of ``arch``. Raises NoImageFits where it cannot, with any memory."""
    pin = variant.pin("vllm") if variant.backend == "vllm" else variant.pin("transformers")
    assert pin is not None  # noqa: S101  (every stack pins its backend)
    version = Version(pin.version)
    _check_family(model, variant, version if variant.backend == "vllm" else None)
    dtype = _dtype(model, variant, version, arch)
    kernel, row = _kernel(model, variant, version, arch)
    if row is not None and row.float16 and model.dtype == "":
        dtype = Setting("dtype", "float16", f"the plain {kernel.value} kernel computes in float16 only", row.source)
    generation = _generation(variant, version, arch)
    attention, flags = _attention(variant, version, arch)
    return CardBackend(
        variant.backend,
        version,
        arch,
        dtype.value,
        "" if kernel.value == "none" else kernel.value,
        chunked=variant.backend == "vllm" and generation.value == "V1",
        unpacks=row.unpacks if row else kernel.value == "unpacked at each use",
        flags=flags,
        choices=(dtype, kernel, *((generation,) if variant.backend == "vllm" else ()), *attention),
    )


def _dtype(model: Model, variant: Variant, version: Version, arch: Arch) -> Setting:
    if arch < Arch(8, 0):
        if model.dtype == "bfloat16":
            raise NoImageFits(
                f"{model.name} cannot be served on compute capability {arch}",
                cause="bfloat16 needs 8.0 or newer; older cards compute in float16",
                do=f"--model {model.shape.name}-fp16: the same weights, converted when they are loaded",
                where="vllm/worker/worker.py@v0.7.3 _check_if_gpu_supports_dtype",
            )
        if variant.backend == "vllm" and version < Version("0.8") and _overflows(model):
            raise NoImageFits(
                f"vLLM {version} answers only '!!!!' with the 3B model on compute capability {arch}",
                cause="the 3B vision tower overflows in float16, and vLLM clamps it from 0.8.0 on",
                do="--variant with vLLM 0.8.5 (cu124), or the 7B model",
                where="vllm#13817, PR #13968",
            )
        return Setting("dtype", "float16", f"compute capability {arch} has no bfloat16", "vllm/worker/worker.py@v0.7.3")
    if model.dtype == "float16":
        return Setting("dtype", "float16", "asked for", "--model")
    return Setting("dtype", "bfloat16", "as the model was trained; float16 overflows in the vision tower", "vllm#13817")


def _overflows(model: Model) -> bool:
    """Whether it is Qwen2.5-VL 3B, whose vision tower leaves float16."""
    return model.shape.family == "qwen2_5_vl" and model.shape.hidden == 2048


def _kernel(model: Model, variant: Variant, version: Version, arch: Arch) -> tuple[Setting, Kernel | None]:
    """What computes the decoder's linears, and vLLM's row for it (None: no row, as for 16 bits)."""
    if model.form == "16-bit":
        return Setting("quantisation", "none", "the weights have 16 bits", "--model"), None
    if variant.backend == "transformers":
        return _unpacked(model, variant, arch), None
    row = kernel_for(model, version, arch)
    if row is None:
        raise _no_kernel(model, version, arch)
    if row.unpacks:
        best = next((one for one in KERNELS if one.form == model.form and one.runs(version, arch)), row)
        what = f"with {model.told}" if best.name.endswith("marlin") else f"on {arch} in vLLM {version}"
        why = f"Marlin does not run {what}, so vLLM takes the plain kernel: give no --quantization"
    elif row.name == "fp8_marlin":
        why = f"{arch} does not compute in FP8: Marlin unpacks the weights, and activations keep 16 bits"
    elif row.name.endswith("marlin"):
        why = f"Marlin runs on {arch} in vLLM {version}, and vLLM takes it by itself: give no --quantization"
    else:
        why = f"{arch} computes weights and activations in 8 bits: give no --quantization"
    return Setting("quantisation", row.name, why, row.source), row


def _unpacked(model: Model, variant: Variant, arch: Arch) -> Setting:
    source = "dockerfiles/rootfs/opt/cardstock/awq_loader.py"
    if model.form == "awq" and model.group > 0 and not model.symmetric:
        why = "AWQ weights stay in 4 bits and are unpacked at each use, on every card"
        return Setting("quantisation", "unpacked at each use", why, source)
    raise NoImageFits(
        f"{variant.id} does not read {model.form.upper()} weights" if model.form != "awq" else
        f"{variant.id} reads AWQ in groups and with zero points alone",
        cause="its server knows AWQ and 16 bits",
        do=f"--model {model.shape.name}-awq{', or a variant with vLLM' if arch >= Arch(7, 0) else ''}",
        where=source,
    )  # fmt: skip


def _no_kernel(model: Model, version: Version, arch: Arch) -> NoImageFits:
    why, source = why_none(model, version, arch)
    if model.form == "awq" and arch < Arch(7, 5):
        why = "AWQ needs 7.5 in every version of vLLM"
    do = f"--model {model.shape.name}-fp16, if it fits; or a card of 8.0 or newer"
    if not arch < Arch(8, 0):
        do = f"--model {model.shape.name}-awq, or the weights in 16 bits"
    if model.form == "int8" and not arch < Arch(10, 0):
        do = f"--model {model.shape.name}-fp8"
    elif arch < Arch(7, 5) and version < Version("0.32"):
        do = f"--model {model.shape.name}-gptq (its kernel runs from 6.0) or {model.shape.name}-fp16"
    if model.form == "awq":
        do += "; or the same AWQ weights with transformers, slower: a variant with sdpa"
    return NoImageFits(f"vLLM cannot serve {model.name} on compute capability {arch}", cause=why, do=do, where=source)


def check_on_cpu(model: Model, variant: Variant) -> None:
    """Raises NoImageFits where the image for the CPU does not know the model's family or form of weights."""
    pin = variant.pin("vllm_cpu")
    _check_family(model, variant, Version(pin.version) if pin else None)
    why = why_not_on_a_cpu(model)
    if why:
        raise NoImageFits(
            f"the server on a CPU cannot serve {model.name}",
            cause=why,
            do=f"--model {model.shape.name}-awq, or 16 bits",
            where=CPU_SOURCE,
        )


def _check_family(model: Model, variant: Variant, vllm: Version | None) -> None:
    """Raises NoImageFits where the stack's vLLM or transformers does not hold the family yet."""
    known = KNOWN[model.shape.family]
    pin = variant.pin("transformers")
    lacks = [
        f"{name} {have}, and {known.title} needs {least} or newer"
        for name, have, least in (
            ("vLLM", vllm, known.vllm),
            ("transformers", Version(pin.version) if pin else None, known.transformers),
        )
        if have is not None and have < least
    ]
    if lacks:
        raise NoImageFits(
            f"{variant.id} does not know {known.title}",
            cause=f"it has {lacks[0]}",
            do="an image with a newer stack, such as cu128, cu129 or cu130 (./inv plan --all), or Qwen2.5-VL (7b)",
            where=known.source,
        )


def _generation(variant: Variant, version: Version, arch: Arch) -> Setting:
    """V0 takes a prompt with pictures in one piece; V1 takes it in pieces of --max-num-batched-tokens."""
    name, source = "engine generation", "vllm/engine/arg_utils.py@v0.8.5, v0.9.2; PR #25351"
    if version < Version("0.8"):
        return Setting(name, "V0", f"vLLM {version} has V0 unless told otherwise", source)
    if version < Version("0.10.2") and (arch < Arch(8, 0) or variant.attention == "xformers"):
        why = "below 8.0" if arch < Arch(8, 0) else "with xformers"
        return Setting(name, "V0", f"vLLM {version} falls back to V0 {why}: a prompt is computed in one piece", source)
    return Setting(name, "V1", f"vLLM {version} has V1, which computes a prompt in pieces", source)


def _attention(variant: Variant, version: Version, arch: Arch) -> tuple[tuple[Setting, Setting], tuple[str, ...]]:
    decoder, vision = "attention", "vision attention"
    if variant.backend == "transformers":
        why = "torch's own attention, on every card"
        vision_why = "as the decoder's; in float32, for float16 overflows" if arch < Arch(8, 0) else "as the decoder's"
        source = "dockerfiles/rootfs/opt/cardstock/server.py"
        return (Setting(decoder, "sdpa", why, source), Setting(vision, "sdpa", vision_why, source)), ()
    platform = f"vllm/platforms/cuda.py@v{version.base_version}"
    if variant.attention == "xformers":
        by = "VLLM_ATTENTION_BACKEND=XFORMERS, which the image sets"
        chosen = (
            Setting(decoder, "XFORMERS", f"by {by}", f"vllm/envs.py@v{version.base_version}"),
            Setting(vision, "XFORMERS", "by the same variable: before 0.11.1 there is one for both", platform),
        )
        return chosen, ()
    if variant.attention == "triton":
        # The image's own flag names the decoder's; the vision tower's choice below 8.0 is torch's (0.18 and newer).
        why = "this version picks it by itself below 8.0"
        by = "by --attention-backend, which the image sets; below 8.0 Triton makes no use of tensor cores"
        return (
            Setting(decoder, "TRITON_ATTN", by, f"{platform}; triton PR #5066"),
            Setting(vision, "TORCH_SDPA", why, platform),
        ), ()
    if variant.attention == "flashinfer":
        # Above 8.0 no image has its kernels; below, the vision tower is as with Triton's: it is not told to be another.
        why = "this version picks it by itself below 8.0"
        by = "by --attention-backend, which the image sets; its kernels are compiled into the image"
        return (Setting(decoder, "FLASHINFER", by, platform), Setting(vision, "TORCH_SDPA", why, platform)), ()
    hopper = arch.major == 9
    flash = f"FlashAttention {3 if hopper else 2} of vLLM itself"
    if version >= Version("0.15"):
        # Said, not left to be picked: FlashInfer is the first pick on 10.x and is compiled at start.
        words = ("--attention-backend", "FLASH_ATTN", "--mm-encoder-attn-backend", "FLASH_ATTN")
        chosen = (
            Setting(decoder, "FLASH_ATTN", f"{flash}, by --attention-backend", platform),
            Setting(vision, "FLASH_ATTN", "by --mm-encoder-attn-backend", platform),
        )
        return chosen, words
    first = Setting(decoder, "FLASH_ATTN", f"{flash}, which this version picks by itself", platform)
    return (first, _old_vision(variant, version, arch, vision, platform)), ()


def _old_vision(variant: Variant, version: Version, arch: Arch, name: str, platform: str) -> Setting:
    source = f"vllm/model_executor/models/vision.py@v{version.base_version}"
    if version >= Version("0.11"):
        if arch >= Arch(10, 0):
            return Setting(name, "TORCH_SDPA", "this version picks it by itself from 10.0 on", platform)
        return Setting(name, "FLASH_ATTN", "of vLLM itself, which this version picks", platform)
    if variant.pin("flash_attn"):
        return Setting(name, "FLASH_ATTN", "of the package flash-attn, which the image has", source)
    return Setting(name, "XFORMERS", "this version takes it where the package flash-attn is missing", source)
