"""Runs inside an image with vLLM: what fit says of splits and flags, asked of vLLM's own functions.

    python fit_inside.py FILE    FILE: {"splits": [...], "flags": [[...], ...]} as tests/engine/test_fit.py writes them

Prints one line of JSON: {"splits": ..., "flags": ..., "differ": [...]}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from vllm.config import ModelConfig
from vllm.distributed.utils import divide
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.layers.quantization.utils.marlin_utils import verify_marlin_supports_shape

try:
    from vllm.model_executor.layers.quantization.awq import AWQConfig, AWQLinearMethod
except ImportError:  # newer: one method for every backend, which has no plain one to ask without a card
    AWQConfig = AWQLinearMethod = None
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser


class Unset(SimpleNamespace):
    """A configuration in which whatever a version of vLLM also looks at is off."""

    def __getattr__(self, name: str) -> bool:
        """Only asked for what was not given."""
        return False


def check_split(case: dict[str, Any]) -> None:
    """Raises ValueError or AssertionError as vLLM would when a model of this shape is cut so."""
    tp, heads, kv = case["tp"], case["heads"], case["kv_heads"]
    model = Unset(
        hf_text_config=SimpleNamespace(num_attention_heads=heads),
        model_arch_config=SimpleNamespace(total_num_attention_heads=heads),
        multimodal_config=None,
    )
    parallel = Unset(tensor_parallel_size=tp, pipeline_parallel_size=1, decode_context_parallel_size=1)
    ModelConfig.verify_with_parallel_config(model, parallel)
    divide(kv, tp) if kv >= tp else divide(tp, kv)  # as in vllm/model_executor/models/qwen2.py
    for width in (case["intermediate"], case["vision_heads"], case["vision_intermediate"]):
        divide(width, tp)
    if case["form"] == "16-bit":
        return
    for inputs in (heads * 128, case["intermediate"]):
        verify_marlin_supports_shape(case["hidden"], inputs // tp, inputs, 128)
        if case["form"] == "awq" and AWQConfig is not None:
            check_awq(inputs // tp, inputs, case["hidden"])


def check_awq(part: int, inputs: int, outputs: int) -> None:
    """The plain AWQ kernel's own check; its weights are made on no device."""
    with torch.device("meta"):
        method = AWQLinearMethod(AWQConfig(4, 128, True, ["visual"]))
        method.create_weights(torch.nn.Module(), part, [outputs], inputs, outputs, torch.float16, weight_loader=print)


def said_sizes(words: list[str]) -> list[int]:
    """The sizes of CUDA graphs that the words tell, in either form; [] where they tell none."""
    if "--cudagraph-capture-sizes" in words:
        rest = words[words.index("--cudagraph-capture-sizes") + 1 :]
        return [int(word) for word in rest[: next((at for at, w in enumerate(rest) if w[:1] == "-"), len(rest))]]
    if "--compilation-config" in words:
        return list(json.loads(words[words.index("--compilation-config") + 1])["cudagraph_capture_sizes"])
    return []


def main() -> None:
    """Every split, then every list of flags."""
    asked = json.loads(Path(sys.argv[1]).read_text())
    differ = []
    # Weights ask which of how many processes this is: the first of one.
    import vllm.model_executor.parameter as parameter

    parameter.get_tensor_model_parallel_rank = lambda: 0
    parameter.get_tensor_model_parallel_world_size = lambda: 1
    for case in asked["splits"]:
        try:
            check_split(case)
            refused = ""
        except (AssertionError, ValueError) as error:
            refused = f"{type(error).__name__}: {error}"
        if bool(refused) != bool(case["obstacles"]):
            differ.append({**case, "vllm": refused})
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    for words in asked["flags"]:
        args = AsyncEngineArgs.from_cli_args(parser.parse_args(["--model", "/models", *words]))
        said = words[words.index("--max-model-len") + 1]
        sizes = getattr(args, "cudagraph_capture_sizes", None) or getattr(
            args.compilation_config, "cudagraph_capture_sizes", None
        )
        if (
            str(args.max_model_len) != said
            or not isinstance(args.mm_processor_kwargs, dict)
            or (sizes or []) != said_sizes(words)
        ):
            differ.append({"flags": words})
    print(json.dumps({"splits": len(asked["splits"]), "flags": len(asked["flags"]), "differ": differ}))


if __name__ == "__main__":
    main()
