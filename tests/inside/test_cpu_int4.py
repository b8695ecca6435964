"""4-bit weights in vLLM on a CPU without AVX-512, with torch and vLLM: run as test_awq.py is."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import torch
from vllm.model_executor.kernels import linear
from vllm.model_executor.layers.quantization.utils.quant_utils import pack_quantized_values_into_int32
from vllm.platforms import PlatformEnum
from vllm.scalar_type import scalar_types

from images.proof.tiny_model import golden

sys.path.insert(0, str(golden.ROOTFS / "plugins"))
import cpu_int4  # type: ignore[import-not-found,unused-ignore]

INPUTS, OUTPUTS, GROUP = 256, 96, 64
# bfloat16 keeps 8 bits: of each weight's scale and zero, of each input, and of the sum.
ALLOWED = 2**-6


def config(**other: Any) -> Any:
    shape = (INPUTS, OUTPUTS)
    given = {
        "weight_type": scalar_types.uint4,
        "zero_points": True,
        "group_size": GROUP,
        "partition_weight_shape": shape,
    }
    return linear.MPLinearLayerConfig(**{"full_weight_shape": shape, "act_type": torch.float16, **given, **other})


def parameter(data: torch.Tensor, flip: bool, **dims: int) -> torch.nn.Parameter:
    """As a checkpoint has it: ``data`` as it is, or the other way round."""
    made = torch.nn.Parameter(data.t().contiguous() if flip else data.contiguous(), requires_grad=False)
    for name, value in dims.items():
        setattr(made, name, 1 - value if flip else value)
    return made


def layer_of(zero_points: bool, flip: bool, dtype: torch.dtype) -> tuple[Any, Any, torch.Tensor]:
    """A kernel, a layer with its parameters, and the same weights [in, out] in float32."""
    made = torch.Generator().manual_seed(1)
    kind = scalar_types.uint4 if zero_points else scalar_types.uint4b8
    values = torch.randint(0, 16, (INPUTS, OUTPUTS), generator=made, dtype=torch.int32)
    zeros = torch.randint(0, 16, (INPUTS // GROUP, OUTPUTS), generator=made, dtype=torch.int32)
    scales = (torch.rand(zeros.shape, generator=made) * 0.01 + 0.001).to(dtype)
    layer = torch.nn.Module()
    packed = pack_quantized_values_into_int32(values, kind, 0)
    layer.register_parameter("qweight", parameter(packed, flip, input_dim=0, output_dim=1, packed_dim=0))
    layer.register_parameter("scales", parameter(scales, flip, input_dim=0, output_dim=1))
    if zero_points:
        words = pack_quantized_values_into_int32(zeros, kind, 1)
        layer.register_parameter("qzeros", parameter(words, flip, input_dim=0, output_dim=1, packed_dim=1))
    else:
        zeros = torch.full_like(zeros, 8)
    chosen = config(weight_type=kind, zero_points=zero_points, act_type=dtype)
    kernel = cpu_int4.TorchInt4LinearKernel(chosen, "qweight", "scales", "qzeros")
    whole = (values - zeros.repeat_interleave(GROUP, 0)) * scales.float().repeat_interleave(GROUP, 0)
    return kernel, layer, whole


@pytest.mark.parametrize("zero_points", [True, False], ids=["awq", "symmetric"])
@pytest.mark.parametrize("flip", [False, True], ids=["inputs first", "outputs first"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3)], ids=str)
def test_the_product_is_that_of_the_whole_weights(
    zero_points: bool, flip: bool, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    kernel, layer, whole = layer_of(zero_points, flip, dtype)
    kernel.process_weights_after_loading(layer)
    made = torch.Generator().manual_seed(2)
    x = torch.randn((*shape, INPUTS), generator=made).to(dtype)
    bias = torch.randn(OUTPUTS, generator=made).to(dtype)
    out, wanted = kernel.apply_weights(layer, x, bias), x.float() @ whole + bias.float()
    assert (out.shape, out.dtype) == (wanted.shape, dtype)
    assert (out.float() - wanted).abs().max() <= ALLOWED * wanted.abs().max()


def test_four_bits_a_weight_stay_in_memory() -> None:
    kernel, layer, _ = layer_of(True, False, torch.float16)
    kernel.process_weights_after_loading(layer)
    assert layer.qweight.nbytes == INPUTS * OUTPUTS // 2
    assert layer.qzeros.nbytes == 0


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"group_size": 16}, "group size"),
        ({"group_size": -1}, "group size"),
        ({"zero_points": False}, "not uint4"),
        ({"weight_type": scalar_types.uint8b128, "zero_points": False}, "not uint8b128"),
        ({"partition_weight_shape": (INPUTS + 32, OUTPUTS)}, "multiples"),
        ({"partition_weight_shape": (INPUTS, OUTPUTS + 8)}, "multiples"),
    ],
)
def test_what_torch_cannot_multiply_is_refused_with_the_reason(other: dict[str, Any], why: str) -> None:
    able, reason = cpu_int4.TorchInt4LinearKernel.can_implement(config(**other))
    assert not able
    assert why in reason


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """vLLM's kernels for the CPU, put back afterwards."""
    own = list(linear._POSSIBLE_KERNELS[PlatformEnum.CPU])
    monkeypatch.setitem(linear._POSSIBLE_KERNELS, PlatformEnum.CPU, own)
    monkeypatch.setenv("VLLM_DISABLED_KERNELS", "AnotherKernel")
    return own


def test_vllm_chooses_it_where_its_own_is_missing(kernels: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_int4, "missing", lambda: True)
    cpu_int4.register()
    cpu_int4.register()
    assert linear.choose_mp_linear_kernel(config()) is cpu_int4.TorchInt4LinearKernel
    assert os.environ["VLLM_DISABLED_KERNELS"] == f"AnotherKernel,{cpu_int4.MISSING}"


def test_vllm_keeps_its_own_where_it_has_it(kernels: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_int4, "missing", lambda: False)
    cpu_int4.register()
    assert linear.choose_mp_linear_kernel(config()).__name__ == cpu_int4.MISSING
    assert os.environ["VLLM_DISABLED_KERNELS"] == "AnotherKernel"


def test_it_is_missing_just_where_torch_sees_no_avx512() -> None:
    assert cpu_int4.missing() is not torch.cpu._is_avx512_supported()
