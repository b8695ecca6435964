"""Forms of weights: what a config.json says, which kernel computes it on which card, and why none does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from packaging.version import Version

from images.core.errors import NoImageFits
from images.matrix.arch import parse_arch
from images.run.fit.backends import backend_for
from images.run.fit.config import from_config
from images.run.fit.forms import KERNELS, kernel_for, why_none
from images.run.fit.model import Model
from images.run.fit.parallel import obstacles
from images.run.fit.weights import linear_bytes
from tests.helpers.fits import model, variant
from tests.helpers.nonempty import nonempty
from tests.unit.run.fit.test_find import AWQ, CONFIG

VERSIONS = ("0.7.3", "0.8.5.post1", "0.9.2", "0.11.0", "0.19.1", "0.33.0")
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}


def _compressed(kind: str, bits: int, strategy: str, act: int | None = None, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "strategy": strategy, "symmetric": True, **more}
    inputs = None if act is None else {"num_bits": act, "type": kind, "dynamic": True}
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}},
    }


def _read(settings: dict[str, Any]) -> Model:
    return from_config({**CONFIG, "quantization_config": settings})


@pytest.mark.parametrize(
    ("settings", "form", "bits", "group", "symmetric"),
    [
        (AWQ, "awq", 4, 128, False),
        ({**AWQ, "zero_point": False}, "awq", 4, 128, True),
        (GPTQ, "gptq", 4, 128, True),
        ({**GPTQ, "bits": 8}, "gptq", 8, 128, True),
        ({**GPTQ, "group_size": -1}, "gptq", 4, -1, True),
        ({**GPTQ, "bits": 3, "sym": False}, "gptq", 3, 128, False),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8", 8, 0, True),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8, 128, True),
        (_compressed("int", 4, "group", group_size=128), "wna16", 4, 128, True),
        (_compressed("int", 4, "group", group_size=32, symmetric=False), "wna16", 4, 32, False),
        (_compressed("int", 8, "channel"), "wna16", 8, -1, True),
        (_compressed("int", 8, "channel", 8), "int8", 8, 0, True),
        (_compressed("float", 8, "channel", 8), "fp8", 8, 0, True),
        (_compressed("float", 8, "tensor"), "fp8", 8, 0, True),
    ],
)
def test_forms_of_a_config(settings: dict[str, Any], form: str, bits: int, group: int, symmetric: bool) -> None:
    found = _read(settings)
    assert (found.form, found.weight_bits, found.group, found.symmetric) == (form, bits, group, symmetric)


def test_an_order_of_inputs_is_one_only_with_groups() -> None:
    assert _read({**GPTQ, "desc_act": True}).act_order
    assert not _read({**GPTQ, "desc_act": True, "group_size": -1}).act_order
    assert _read(_compressed("int", 4, "group", group_size=128, actorder="group")).act_order


# Kernel by version of vLLM, for each capability; "" where nothing computes it. Sources: images/run/fit/forms.py.
_TABLE: dict[str, tuple[Model, dict[str, tuple[str, ...]]]] = {
    "GPTQ, 8 bits": (
        replace(model("7b-gptq"), bits=8),
        {
            "7.0": ("gptq", "gptq", "gptq", "gptq", "gptq", ""),
            "7.5": ("gptq", "gptq", "gptq", "gptq", "gptq_marlin", "gptq_marlin"),
            "8.6": ("gptq_marlin",) * 6,
        },
    ),
    "GPTQ in one group": (replace(model("7b-gptq"), group=-1), {"8.0": ("gptq_marlin",) * 6}),
    "GPTQ with zero points": (
        replace(model("7b-gptq"), symmetric=False),
        {"8.0": ("gptq",) * 5 + ("",), "9.0": ("gptq",) * 5 + ("",)},
    ),
    "GPTQ in order": (replace(model("7b-gptq"), act_order=True), {"8.0": ("gptq_marlin",) * 6}),
    "AWQ": (model("7b-awq"), {"7.0": ("",) * 6, "7.5": ("awq",) * 4 + ("awq_marlin",) * 2, "8.9": ("awq_marlin",) * 6}),
    "W4A16": (model("7b-w4a16"), {"7.5": ("",) * 4 + ("marlin",) * 2, "8.0": ("marlin",) * 6}),
    "W4A16 with zero points": (replace(model("7b-w4a16"), symmetric=False), {"8.0": ("",) + ("marlin",) * 5}),
    "FP8": (
        model("7b-fp8"),
        {
            "7.0": ("",) * 6,
            "7.5": ("",) * 4 + ("fp8_marlin",) * 2,
            "8.6": ("fp8_marlin",) * 6,
            "8.9": ("fp8",) * 6,
            "9.0": ("fp8",) * 6,
            "12.0": ("fp8",) * 6,
        },
    ),
    "FP8 in blocks": (
        replace(model("7b-fp8"), group=128),
        {"8.0": ("", "") + ("fp8_marlin",) * 4, "8.9": ("fp8",) * 6},
    ),
    "FP8 in blocks, compressed-tensors": (
        replace(model("7b-fp8"), group=128, method="compressed-tensors"),
        {"8.0": ("",) * 4 + ("fp8_marlin",) * 2, "9.0": ("",) * 3 + ("fp8",) * 3},
    ),
    "W8A8 in int8": (
        model("7b-w8a8"),
        {"7.0": ("",) * 6, "7.5": ("cutlass_int8",) * 6, "9.0": ("cutlass_int8",) * 6, "12.0": ("",) * 6},
    ),
}


@pytest.mark.parametrize("name", _TABLE)
def test_the_kernel_of_each_form(name: str) -> None:
    asked, rows = _TABLE[name]
    for arch, wanted in nonempty(rows.items()):
        for version, kernel in nonempty(zip(VERSIONS, wanted, strict=True)):
            found = kernel_for(asked, Version(version), parse_arch(arch))
            assert (found.name if found else "") == kernel, (arch, version)
            if found is None:
                told, source = why_none(asked, Version(version), parse_arch(arch))
                assert told and source and "None" not in told


def test_every_row_has_a_source_in_vllm() -> None:
    assert all("vllm/" in row.source for row in nonempty(KERNELS))


@pytest.mark.parametrize(
    ("asked", "image", "arch", "why"),
    [
        (model("7b-fp8"), "cu124-vllm0.8.5.post1-xformers-sm75", "7.5", "FP8 needs 8.0 or newer in vLLM 0.8.5.post1"),
        (model("7b-w8a8"), "cu130-vllm0.33.0-flash-attn-sm120", "12.0", "from 10.0 on it has no kernel for int8"),
        (
            replace(model("7b-gptq"), symmetric=False),
            "cu130-vllm0.33.0-flash-attn-sm86",
            "8.6",
            "does not compute GPTQ of 4 bits in groups of 128, with zero points; vLLM below 0.32 does",
        ),
        (
            replace(model("7b-w4a16"), group=16),
            "cu130-vllm0.33.0-flash-attn-sm86",
            "8.6",
            "no kernel of vLLM 0.33.0 computes compressed-tensors W4A16 or W8A16 of 4 bits in groups of 16",
        ),
        (model("7b-awq"), "cu124-vllm0.8.5.post1-xformers-sm70", "7.0", "AWQ needs 7.5 in every version"),
        (
            replace(model("7b-fp8"), group=128),
            "cu124-vllm0.8.5.post1-flash-attn-sm86",
            "8.6",
            "FP8 in blocks needs 8.9 or newer in vLLM 0.8.5.post1",
        ),
    ],
)
def test_the_real_reason_is_told(asked: Model, image: str, arch: str, why: str) -> None:
    with pytest.raises(NoImageFits, match=why) as caught:
        backend_for(asked, variant(image), parse_arch(arch))
    assert "bitsandbytes" not in caught.value.do


def test_fp8_on_ampere_keeps_activations_in_16_bits() -> None:
    found = backend_for(model("7b-fp8"), variant("cu130-vllm0.33.0-flash-attn-sm86"), parse_arch("8.6"))
    quantisation = next(one for one in found.choices if one.name == "quantisation")
    assert quantisation.value == "fp8_marlin" and "activations keep 16 bits" in quantisation.why
    assert not found.unpacks


def test_bytes_of_a_linear_in_each_form() -> None:
    # 3584 inputs, 512 outputs: a scale of 4 bytes an output, or one for each of 28 x 4 blocks.
    size = 3584 * 512
    assert linear_bytes(model("7b-fp8"), 3584, 512) == size + 4 * 512
    assert linear_bytes(replace(model("7b-fp8"), group=128), 3584, 512) == size + 4 * 28 * 4
    assert linear_bytes(model("7b-w8a8"), 3584, 512) == size + 4 * 512
    # 28 groups: scales of 2 bytes; zeros of the weights' bits; GPTQ's index of 4 bytes an input.
    assert linear_bytes(model("7b-w4a16"), 3584, 512) == size // 2 + 28 * 512 * 2
    assert linear_bytes(replace(model("7b-gptq"), bits=8), 3584, 512) == size + 28 * 512 * 3 + 4 * 3584
    assert linear_bytes(replace(model("7b-gptq"), group=-1), 3584, 512) == size // 2 + 512 * 2 + 256 + 4 * 3584


def test_one_group_is_cut_anywhere_and_blocks_are_not() -> None:
    whole = model("72b-gptq")
    assert list(obstacles(whole, 2, "gptq"))  # 29568 is 231 groups of 128
    assert not list(obstacles(replace(whole, group=-1), 2, "gptq"))
    assert list(obstacles(replace(whole, group=-1), 2, "gptq_marlin"))  # 14784 is not divisible by 128
    assert not list(obstacles(model("72b-fp8"), 2, "fp8_marlin"))
    assert list(obstacles(replace(model("72b-fp8"), group=128), 2, "fp8"))
    assert not list(obstacles(model("72b-w8a8"), 2, "cutlass_int8"))
