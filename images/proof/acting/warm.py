"""Inside an image, on the real card: have the driver compile what acting as 8.0 to 8.9 needs of FlashAttention 2.

    python -m images.proof.acting.warm --out FILE

Its library has machine code and PTX for 8.0 alone, so a newer card's driver compiles a file of its kernels when one of
them is first called: minutes each. The files that the two checkpoints need are compiled side by side here, one in a
process, into the cache that CUDA_CACHE_PATH names. Without this a server compiles them one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from images.core import process

# Size of a head, and whether it is the decoder's (causal, paged): of the tiny model and of 3B's shape.
KINDS = ((64, True), (64, False), (128, True), (80, False))
NAME = "images.proof.acting.warm"
PAGE, LENGTH, HEADS = 16, 64, 2
LIMIT = 560.0


def call(size: int, paged: bool) -> None:
    """One attention by FlashAttention 2 over ``LENGTH`` places."""
    import torch
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    def numbers(*shape: int) -> Any:
        return torch.randn(*shape, device="cuda", dtype=torch.float16)

    ends = torch.tensor([0, LENGTH], device="cuda", dtype=torch.int32)
    query = numbers(LENGTH, HEADS, size)
    if paged:
        pages = LENGTH // PAGE
        cache = numbers(2, pages, PAGE, HEADS, size)
        more = {
            "seqused_k": ends[1:],
            "block_table": torch.arange(pages, device="cuda", dtype=torch.int32)[None],
        }
        keys, values = cache[0], cache[1]
    else:
        more = {"cu_seqlens_k": ends}
        keys, values = numbers(LENGTH, HEADS, size), numbers(LENGTH, HEADS, size)
    out = flash_attn_varlen_func(
        query,
        keys,
        values,
        max_seqlen_q=LENGTH,
        cu_seqlens_q=ends,
        max_seqlen_k=LENGTH,
        causal=paged,
        fa_version=2,
        **more,
    )
    torch.cuda.synchronize()
    if not bool(out.isfinite().all()):
        raise ValueError("numbers that are not finite")


def compile_one(kind: tuple[int, bool]) -> dict[str, Any]:
    """A process of its own for a kind; its seconds, and why it failed or ""."""
    begun = time.monotonic()
    words = [sys.executable, "-c", f"from {NAME} import call; call({kind[0]}, {kind[1]})"]
    try:
        done = process.run(words, check=False, timeout=LIMIT)
        why = (done.err or done.out)[-400:] if done.code else ""
    except process.ProcessFailed as error:
        why = str(error)[-400:]
    return {"head": kind[0], "paged": kind[1], "seconds": round(time.monotonic() - begun, 1), "why": why}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    with ThreadPoolExecutor(len(KINDS)) as pool:
        words.out.write_text(json.dumps({"compiled": list(pool.map(compile_one, KINDS))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
