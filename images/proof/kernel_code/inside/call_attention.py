"""Which kernels vLLM's Triton attention launches, found by calling its own host code without a card: lines of a trace.

    python call_attention.py --capability 7.5 --heads 16:2 [--heads 28:4]…

Triton is given a driver that only says which card it has, and a compiler that only writes down what it is asked; vLLM's
function gets tensors of the shapes and types that its backend hands it (TritonAttentionImpl.forward). So block sizes,
tiles and constants are those that vLLM chooses. A line of JSON a kernel, as sitecustomize.py writes it; "shared" is -1,
for nothing is compiled.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import sys
from contextlib import suppress
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""
HEAD, BLOCK, SEGMENTS, BLOCKS = 128, 16, 16, 64
MODULES = ("vllm.v1.attention.ops.triton_unified_attention", "vllm.attention.ops.prefix_prefill")


class SaidDriver:
    """A driver without a card behind it."""

    def __init__(self, number: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", number, 32)

    def get_current_device(self) -> int:
        """The first card."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default stream."""
        return 0

    def get_current_target(self) -> Any:
        """The card that was said."""
        return self.target


def watch(number: int, lines: list[dict[str, Any]]) -> None:
    """From here on a launch of a kernel adds a line, and launches nothing."""
    import kernel_entries  # type: ignore[import-not-found,unused-ignore]
    import triton
    from triton.runtime import JITFunction, driver

    # Modules of vLLM ask for a driver when they are imported, so they come before this.
    for name in MODULES:
        with suppress(ImportError):
            importlib.import_module(name)
    driver.set_active(SaidDriver(number))

    def note(src: Any, target: Any = None, options: Any = None, **more: Any) -> None:
        entry = kernel_entries.entry_of(src, options)
        lines.append(
            {"entry": entry, "key": kernel_entries.key_of(entry), "target": str(number), "shared": -1, "dots": 0}
        )

    triton.compile = triton.compiler.compile = triton.compiler.compiler.compile = note
    run = JITFunction.run

    def only_compile(self: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        return run(self, *arguments, grid=grid, warmup=True, **named)

    JITFunction.run = only_compile


def call(heads: int, kv_heads: int, dtype: Any) -> None:
    """Prefill of 512 tokens in two sequences, then decoding of both."""
    import torch
    from vllm.v1.attention.ops import triton_unified_attention as attention

    def ints(*values: int) -> Any:
        return torch.tensor(values, dtype=torch.int32)

    cache = torch.zeros(BLOCKS, kv_heads, BLOCK, 2 * HEAD, dtype=dtype).transpose(1, 2)
    keys, values = cache.split(HEAD, dim=-1)
    scale = torch.ones(1, dtype=torch.float32).expand(2, kv_heads)
    known = inspect.signature(attention.unified_attention).parameters
    for tokens in (512, 2):
        each = tokens // 2
        query = torch.zeros(tokens, heads, HEAD, dtype=dtype)
        given = {
            "q": query,
            "k": keys,
            "v": values,
            "out": torch.zeros_like(query),
            "cu_seqlens_q": ints(0, each, tokens),
            "max_seqlen_q": each,
            "seqused_k": ints(512, 512),
            "max_seqlen_k": 512,
            "softmax_scale": HEAD**-0.5,
            "causal": True,
            "window_size": (-1, -1),
            "block_table": torch.zeros(2, 512, dtype=torch.int32),
            "softcap": 0,
            "q_descale": None,
            "k_descale": scale,
            "v_descale": scale,
            "seq_threshold_3D": 128 // kv_heads,
            "num_par_softmax_segments": SEGMENTS,
            "softmax_segm_output": torch.zeros(64, heads, SEGMENTS, HEAD, dtype=torch.float32),
            "softmax_segm_max": torch.zeros(64, heads, SEGMENTS, dtype=torch.float32),
            "softmax_segm_expsum": torch.zeros(64, heads, SEGMENTS, dtype=torch.float32),
        }
        attention.unified_attention(**{name: value for name, value in given.items() if name in known})


def store(kv_heads: int, dtype: Any) -> None:
    """Keys and values of four tokens into the cache, where this vLLM does that by Triton."""
    import torch
    from vllm.v1.attention.ops import triton_reshape_and_cache_flash as storing

    cache = torch.zeros(BLOCKS, kv_heads, BLOCK, 2 * HEAD, dtype=dtype).transpose(1, 2)
    keys, values = cache.split(HEAD, dim=-1)
    fresh = torch.zeros(4, kv_heads, HEAD, dtype=dtype)
    one = torch.ones(1, dtype=torch.float32)
    slots = torch.zeros(4, dtype=torch.int64)
    storing.triton_reshape_and_cache_flash(fresh, fresh, keys, values, slots, "auto", one, one)


def read_cached(heads: int, kv_heads: int, dtype: Any) -> None:
    """Two prompts of 256 tokens whose first halves are in the cache, as vLLM's first engine (V0) reads them."""
    import torch
    from vllm.attention.ops.prefix_prefill import context_attention_fwd

    query = torch.zeros(256, heads, HEAD, dtype=dtype)
    fresh = torch.zeros(256, kv_heads, HEAD, dtype=dtype)
    packed = 16 // dtype.itemsize
    one = torch.ones(1, dtype=torch.float32)
    context_attention_fwd(
        query,
        fresh,
        fresh,
        torch.zeros_like(query),
        "auto",
        torch.zeros(BLOCKS, kv_heads, HEAD // packed, BLOCK, packed, dtype=dtype),
        torch.zeros(BLOCKS, kv_heads, HEAD, BLOCK, dtype=dtype),
        torch.zeros(2, 512, dtype=torch.int32),
        torch.tensor([0, 128, 256], dtype=torch.int32),
        torch.tensor([256, 256], dtype=torch.int32),
        None,
        128,
        one,
        one,
        None,
        None,
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", required=True)
    parser.add_argument("--heads", action="append", required=True, metavar="HEADS:KV_HEADS")
    parser.add_argument("--cached", action="store_true", help="the first engine's kernel for cached prefixes, alone")
    words = parser.parse_args()
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    number = int(words.capability.replace(".", ""))
    lines: list[dict[str, Any]] = []
    import torch

    dtype = torch.float16 if number < 80 else torch.bfloat16
    watch(number, lines)
    torch.cuda.get_device_capability = lambda device=None: divmod(number, 10)
    for text in words.heads:
        heads, kv_heads = map(int, text.split(":"))
        if words.cached:
            read_cached(heads, kv_heads, dtype)
        else:
            call(heads, kv_heads, dtype)
            store(kv_heads, dtype)
    for line in lines:
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
