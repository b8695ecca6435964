"""4-bit weights for vLLM on a CPU without AVX-512, by torch's own 4-bit matrix product.

vLLM compiles its 4-bit product for the CPU, `cpu_gemm_wna16`, for AVX-512 alone, but chooses it on every CPU: with an
AWQ or GPTQ model on a CPU that has AVX2 only, the engine dies at the first request (vllm#55613; so in 0.32.0). This
plugin gives vLLM another kernel to choose where that one is missing, and does nothing where it is there.

vLLM finds `register` by the entry point in the folder beside this file, which PYTHONPATH names.
Source of the interfaces: vllm/plugins/__init__.py, vllm/model_executor/kernels/linear/__init__.py@v0.32.0.
"""

from __future__ import annotations

import os

import torch
from vllm import _custom_ops  # noqa: F401  # loads vLLM's library for this CPU
from vllm.model_executor.kernels.linear import MPLinearKernel, MPLinearLayerConfig, register_linear_kernel
from vllm.model_executor.layers.quantization.utils import replace_parameter
from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_quantized_values_into_int32
from vllm.platforms import PlatformEnum, current_platform
from vllm.scalar_type import scalar_types

MISSING = "CPUWNA16LinearKernel"  # vLLM's own, which asks for torch.ops._C.cpu_gemm_wna16
# What torch's _weight_int4pack_mm_for_cpu takes: torch 2.13 refuses other groups, and outputs that are no multiple.
GROUPS = (32, 64, 128, 256)
MULTIPLE = 16
# torch stands for the value 8 as zero: a weight is (q - 8) * scale + zero.
MIDDLE = 8
# torch 2.13 on AVX2 is many times slower with float16 and float32: a row by 2048 x 11008 took 17 ms, 297 and 179.
WORKING = torch.bfloat16


class TorchInt4LinearKernel(MPLinearKernel):  # type: ignore[misc,unused-ignore]
    """Weights that stay 4-bit in memory, multiplied in bfloat16."""

    @classmethod
    def get_min_capability(cls) -> int:
        """Of no card."""
        return -1

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        """Whether it can, and why not."""
        awq, symmetric = c.weight_type == scalar_types.uint4, c.weight_type == scalar_types.uint4b8
        if not (awq if c.zero_points else symmetric):
            return False, f"weights must be AWQ's or symmetric 4-bit ones, not {c.weight_type}"
        if c.group_size not in GROUPS:
            return False, f"the group size must be one of {GROUPS}, not {c.group_size}"
        inputs, outputs = c.partition_weight_shape
        if inputs % c.group_size or outputs % MULTIPLE:
            return False, f"{inputs} x {outputs} must be multiples of {c.group_size} x {MULTIPLE}"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """From what vLLM hands every such kernel to what torch's product takes.

        Before: weights int32 [in / 8, out], scales [groups, out], zeros int32 [groups, out / 8], or the other way
        round where ``input_dim`` or ``output_dim`` says so. After: weights uint8 [out, in / 2], scales and zeros as one
        bfloat16 [groups, out, 2].
        """
        kind = self.config.weight_type
        weight, scales, zeros = self._get_weight_params(layer)
        packed = weight.data if weight.input_dim == 0 else weight.data.t()
        values = unpack_quantized_values_into_int32(packed, kind, 0)
        by_group = (scales.data if scales.output_dim == 1 else scales.data.t()).float()
        middle = torch.full_like(by_group, MIDDLE)
        if self.config.zero_points:
            across = zeros.data if zeros.output_dim == 1 else zeros.data.t()
            middle = unpack_quantized_values_into_int32(across, kind, 1).float()
            replace_parameter(layer, self.w_zp_name, torch.empty(0))
        both = torch.stack((by_group, (MIDDLE - middle) * by_group), dim=-1).to(WORKING).contiguous()
        replace_parameter(layer, self.w_s_name, both)
        tiles = 1  # of no meaning on a CPU
        kept = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.t().contiguous(), tiles)
        replace_parameter(layer, self.w_q_name, kept)

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``x`` [..., in] times the weights, plus ``bias`` [out], in the type of ``x``."""
        weight, scales, _ = self._get_weight_params(layer)
        rows = x.reshape(-1, x.shape[-1]).to(WORKING).contiguous()
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, weight, self.config.group_size, scales)
        out = out.to(x.dtype).view(*x.shape[:-1], -1)
        return out if bias is None else out + bias


def missing() -> bool:
    """Whether vLLM was loaded for a CPU for which it has no 4-bit product."""
    return bool(current_platform.is_cpu()) and not hasattr(torch.ops._C, "cpu_gemm_wna16")


def register() -> None:
    """Have vLLM choose this kernel where its own is missing. May be called again, also in a child process."""
    if not missing():
        return
    off = [name for name in os.environ.get("VLLM_DISABLED_KERNELS", "").split(",") if name]
    if MISSING not in off:
        os.environ["VLLM_DISABLED_KERNELS"] = ",".join([*off, MISSING])
    register_linear_kernel(TorchInt4LinearKernel, PlatformEnum.CPU)
