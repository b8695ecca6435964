"""One engine of vLLM inside an image, asked over a socket: what it says with every bit, how fast, in how much memory.

    python -m images.proof.lighter.worker --socket PATH

Two of them are asked in turns, one with the image's packages and one with untouched ones, so that a card that slows
down slows both. vLLM is imported before anyone asks, the engine made when "start" comes. A question is a JSON
object with "do" and that method's arguments; the answer is its JSON, or {"error": ...}. Ends when the other side does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from images.proof.on_card.inside import prefill
from images.proof.on_card.shaped import CASES, answer, messages, noise_message
from images.proof.smoke import GOLDEN, TOLERANCE, read_golden
from images.proof.tiny_model import write_checkpoint

LENGTH, NEW_TOKENS, TOP = 8192, 48, 5
SAMPLED = {"temperature": 0.9, "top_p": 0.9, "top_k": 40, "seed": 20261128}
# Texts of several lengths, and pictures that no other prompt has.
TEXTS = ("Say hello", "What colour is this?", "Say hello to a tiny model, a tiny model and a tiny model")
NOISE = (11, 12)


def text_message(text: str) -> list[dict[str, Any]]:
    """A question without a picture."""
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def taught(kind: str) -> dict[str, tuple[list[dict[str, Any]], list[int]]]:
    """Case -> its messages and the ids that the checkpoint has learnt to answer, the end token last."""
    if kind == "tiny":
        return {one.name: (list(one.messages), list(one.tokens)) for one in read_golden(GOLDEN.read_text())}
    return {name: (messages(name), answer(name)) for name in CASES}


def open_questions() -> dict[str, list[dict[str, Any]]]:
    """Prompts whose answers nobody taught: after them greedy and sampled tokens follow small differences of logits."""
    return {text: text_message(text) for text in TEXTS} | {f"noise {seed}": noise_message(seed) for seed in NOISE}


def written(output: Any) -> dict[str, Any]:
    """One answer: token ids, and for each place the logprobs told there as [id, float.hex] by id."""
    said = output.outputs[0]
    places = [
        sorted([int(token), float(getattr(one, "logprob", one)).hex()] for token, one in place.items())
        for place in said.logprobs or ()
    ]
    return {"tokens": [int(token) for token in said.token_ids], "logprobs": places, "finish": said.finish_reason}


def golden_distance(said: Mapping[str, Any]) -> dict[str, Any]:
    """Greatest distance of the chosen tokens' logprobs from the golden ones, by case, and what is allowed."""
    out = {}
    for one in read_golden(GOLDEN.read_text()):
        answered = said[one.name]
        chosen = [dict(place)[token] for token, place in zip(answered["tokens"], answered["logprobs"], strict=True)]
        pairs = zip(chosen, one.logprobs, strict=False)
        out[one.name] = max((abs(float.fromhex(value) - wanted) for value, wanted in pairs), default=float("inf"))
    return {"distance": out, "tolerance": TOLERANCE}


def decode_span(outputs: Sequence[Any]) -> tuple[float, int]:
    """Seconds from the time when all requests had their first token to the last token, and the tokens said in it."""
    begin = max(one.metrics.first_token_ts for one in outputs)
    end = max(one.metrics.last_token_ts for one in outputs)
    return end - begin, sum(len(one.outputs[0].token_ids) - 1 for one in outputs)


class Engine:
    """An LLM of vLLM's in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0), and what it is asked."""

    def __init__(self) -> None:
        import vllm  # type: ignore[import-not-found,unused-ignore]

        self.vllm = vllm
        self.llm: Any = None

    def start(self, model: str, dtype: str, cards: int, eager: bool, kv_bytes: int) -> dict[str, Any]:
        """Make the engine, and a tiny checkpoint first where it is to be.

        The KV cache has a size that is said: it would take what is free, and so differ with everything else.
        """
        begun = time.monotonic()
        if Path(model).name == "tiny":
            write_checkpoint(Path(model))
        self.llm = self.vllm.LLM(
            model=model,
            dtype=dtype,
            max_model_len=2048 if Path(model).name == "tiny" else LENGTH,
            tensor_parallel_size=cards,
            enforce_eager=eager,
            kv_cache_memory_bytes=kv_bytes,
            gpu_memory_utilization=0.4,
            enable_prefix_caching=False,
            mm_processor_cache_gb=0,
            limit_mm_per_prompt={"image": 8, "video": 0},
            disable_log_stats=False,
            seed=0,
        )
        return {"seconds": round(time.monotonic() - begun, 1), **versions()}

    def answers(self, kind: str) -> dict[str, Any]:
        """Mode -> case -> answer: taught alone, then the others alone, all at once, and sampled with a seed."""
        known, other = taught(kind), open_questions()
        greedy = {"temperature": 0.0, "logprobs": TOP}
        modes: dict[str, Any] = {
            "taught": {
                name: self.say([question], {**greedy, "max_tokens": len(wanted) + 3})[0]
                for name, (question, wanted) in known.items()
            },
            "alone": {
                name: self.say([question], {**greedy, "max_tokens": NEW_TOKENS, "ignore_eos": True})[0]
                for name, question in other.items()
            },
        }
        for mode, settings in (("together", {"temperature": 0.0}), ("sampled", SAMPLED)):
            words = {**settings, "logprobs": TOP, "max_tokens": NEW_TOKENS, "ignore_eos": True}
            modes[mode] = dict(zip(other, self.say(list(other.values()), words), strict=True))
        told: dict[str, Any] = {"answers": modes, "wanted": {name: wanted for name, (_, wanted) in known.items()}}
        return told | ({"golden": golden_distance(modes["taught"])} if kind == "tiny" else {})

    def say(self, questions: Sequence[Any], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answers to questions that are asked at once."""
        params = self.vllm.SamplingParams(**settings)
        return [written(one) for one in self.llm.chat(list(questions), params, use_tqdm=False)]

    def decode(self, batch: int, tokens: int) -> dict[str, Any]:
        """Seconds and tokens of steady decoding."""
        params = self.vllm.SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        questions = [text_message(f"{TEXTS[2]} {at}") for at in range(batch)]
        seconds, said = decode_span(self.llm.chat(questions, params, use_tqdm=False))
        return {"seconds": seconds, "tokens": said}

    def prefill(self, batch: int, seed: int) -> dict[str, Any]:
        """Seconds from the first token read to the last request's first token, each with a picture of its own."""
        params = self.vllm.SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
        seconds, read = prefill.prefill(self.llm, params, batch, seed)
        return {"seconds": seconds, "tokens": read}

    def memory(self) -> dict[str, Any]:
        """Greatest bytes that torch has reserved of this process's card; 0 where workers of its own have the cards."""
        import torch

        started = torch.cuda.is_available() and torch.cuda.is_initialized()
        return {"reserved": torch.cuda.max_memory_reserved() if started else 0}

    def close(self) -> None:
        """End the workers, if there are any."""
        with suppress(Exception):
            self.llm.llm_engine.engine_core.shutdown()


def versions() -> dict[str, Any]:
    """Python's, the packages' and the card's."""
    import torch
    import transformers
    import vllm

    told = {one.__name__: one.__version__ for one in (torch, transformers, vllm)}
    return {"versions": {"python": platform.python_version(), **told}}


def serve(socket: str, engine: Engine) -> None:
    """Answer whoever connects, until it hangs up."""
    with Listener(socket, "AF_UNIX") as listener:
        Path(socket).chmod(0o777)  # the other side is another user, outside of the container
        with listener.accept() as other:
            while True:
                try:
                    question = json.loads(other.recv_bytes())
                except EOFError:
                    return
                other.send_bytes(json.dumps(reply(engine, question)).encode())


def reply(engine: Engine, question: dict[str, Any]) -> Any:
    """The answer to one question; what is raised is told instead."""
    try:
        return getattr(engine, question.pop("do"))(**question)
    except Exception:
        return {"error": traceback.format_exc()[-1500:]}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", required=True)
    words = parser.parse_args()
    engine = Engine()
    try:
        serve(words.socket, engine)
    finally:
        engine.close()
    sys.stdout.flush()
    os._exit(0)  # NCCL's and torch's threads may wait for a card that nobody asks any more


if __name__ == "__main__":
    sys.exit(main())
