"""An engine without a server: how long it takes from the first token read to the last request's first token said.

    python -m images.proof.on_card.inside.prefill MODEL --socket PATH [--dtype float16]

A server's clients reach it one after the other, each when its picture is read, so that its own times of prefill hold
their spread. Here all requests wait in the engine before it takes its first step. Asked over a socket for (count,
seed), so that two engines can be asked in turns; the answer is (seconds, tokens of the prompts).
"""

from __future__ import annotations

import argparse
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from images.proof.on_card.shaped import noise_message


def prefill(llm: Any, params: Any, count: int, seed: int) -> tuple[float, int]:
    """Seconds and tokens of ``count`` requests at once, each with a picture of its own; one token is said to each."""
    done = llm.chat([noise_message(seed + at) for at in range(count)], params, use_tqdm=False)
    begin = min(one.metrics.scheduled_ts for one in done)
    end = max(one.metrics.first_token_ts for one in done)
    return end - begin, sum(len(one.prompt_token_ids) for one in done)


def main() -> None:
    """Command line; ends when the other side hangs up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--dtype", default="float16")
    words = parser.parse_args()
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found,unused-ignore]

    # As the servers of backends.py: answers computed anew each time, and room for a second engine on the card.
    llm = LLM(
        model=str(words.model),
        dtype=words.dtype,
        max_model_len=8192,
        gpu_memory_utilization=0.4,
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
        disable_log_stats=False,
    )
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    with Listener(words.socket, "AF_UNIX") as listener, listener.accept() as other:
        while True:
            try:
                count, seed = other.recv()
            except EOFError:
                return
            other.send(prefill(llm, params, count, seed))


if __name__ == "__main__":
    main()
