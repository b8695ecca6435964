"""What vLLM really takes of a card for models of 3B's and 7B's shapes, for images/run/fit to be held against.

Inside an image with vLLM, all cards given; the checkout is /checkout:

    python -m images.proof.on_card.inside.start images.proof.memory.with_vllm \\
        --out FILE [--scratch FOLDER] [--seconds 180]

Each case of cases.py is an engine of its own, forked from a process that has imported vLLM: made-up weights, no
compilation unless the case has CUDA graphs. It is loaded, then asked about a picture of the largest size and a long
text. As many run at once as there are cards. When the time is over the rest is "not run". The record is written after
each case; `python -m images.run.fit.measured FILE` holds it against fit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from images.proof.memory.cases import CASES, FitCase, engine_arguments, write_folder
from images.proof.on_card import prove
from images.proof.on_card.runs import NO_CARD, NO_MULTICAST, Failed, NotRun, Run, process_tree
from images.proof.tiny_model import as_data_url, picture

GIB = 2**30
# What a case must have left to be begun, in seconds; with CUDA graphs the model is compiled first.
LEAST, LEAST_WITH_GRAPHS = 35.0, 75.0
LONGEST = 110.0
# What is not done so long after the end of all time is ended.
GRACE = 15.0
# A card that is not free again so long after its engine has ended is used all the same.
FREED = 10.0
# Bytes in attributes of vLLM's worker (v1/worker/gpu_worker.py of 0.11 to 0.33), and what they are here.
WORKER = {
    "requested_memory": "requested",
    "available_kv_cache_memory_bytes": "cache",
    "non_torch_memory": "outside torch while measuring",
    "peak_activation_memory": "computing",
}
# What its log says, in GiB.
LOGGED = {
    "loaded": re.compile(r"Model loading took ([\d.]+) Gi?B"),
    "cache": re.compile(r"Available KV cache memory: ([\d.]+) Gi?B"),
    "computing": re.compile(r"torch peak memory increase: ([\d.]+) ?Gi?B"),
    "graphs": re.compile(r"Graph capturing finished in [\d.]+ secs?, took (-?[\d.]+) Gi?B"),
}
TOKENS = re.compile(r"GPU KV cache size: ([\d,]+) tokens")
TAIL = 1500
# torch's error where a process had a card's context when it was forked.
FORKED_TOO_LATE = "in forked subprocess"


@dataclass
class Started:
    """A case that runs: its process, where it writes, the cards it has, and when it was begun."""

    case: FitCase
    process: BaseProcess
    folder: Path
    cards: tuple[int, ...]
    begun: float = field(default_factory=time.monotonic)


def ask_card(index: int) -> dict[str, int]:
    """Bytes of a card in use, and all of it, as NVML tells them."""
    import pynvml  # type: ignore[import-untyped,import-not-found,unused-ignore]

    told = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
    return {"used": int(told.used), "total": int(told.total)}


@contextmanager
def watched(indices: Sequence[int]) -> Iterator[dict[int, int]]:
    """The greatest use of each card while this lasts, looked at every fifth of a second."""
    most = dict.fromkeys(indices, 0)
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            for index in indices:
                with suppress(Exception):
                    most[index] = max(most[index], ask_card(index)["used"])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join(timeout=5)


def read_log(text: str) -> dict[str, Any]:
    """What vLLM's log tells of memory, in bytes, and the tokens of its cache.

    Of several cards the greatest, but of their caches the smallest: vLLM lays all of them out for as many tokens.
    """
    seen: dict[str, Any] = {}
    for name, pattern in LOGGED.items():
        if found := [float(value) for value in pattern.findall(text)]:
            seen[name] = int((min if name == "cache" else max)(found) * GIB)
    if tokens := TOKENS.findall(text):
        seen["tokens"] = min(int(one.replace(",", "")) for one in tokens)
    return seen


def _worker_of(llm: Any) -> Any:
    """vLLM's own worker in this process; None where it has others."""
    core = getattr(llm.llm_engine.engine_core, "engine_core", None)
    driver = getattr(getattr(core, "model_executor", None), "driver_worker", None)
    return getattr(driver, "worker", driver)


def _questions(case: FitCase) -> list[list[dict[str, Any]]]:
    """A picture of the largest size, and text of about half a conversation for each request at a time."""
    side = int((case.image_tokens * 784) ** 0.5) // 28 * 28
    url = as_data_url(picture.encode(picture.pixels("red", side, side), side, side))
    seen = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What colour is the square?"}]
    long = "one and two " * (case.length // 8)
    texts = [[{"role": "user", "content": f"{number} {long}"}] for number in range(case.seqs)]
    return [[{"role": "user", "content": seen}], *texts]


def measure(case: FitCase, folder: Path) -> dict[str, Any]:
    """Start the engine in this process, ask it, and tell what it took. Several cards have processes of their own."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found,unused-ignore]

    begun = time.monotonic()
    llm = LLM(**engine_arguments(case, folder / "model"))
    told: dict[str, Any] = {"seconds to start": round(time.monotonic() - begun, 1), "worker": {}}
    worker = _worker_of(llm) if case.tp == 1 else None
    for name, what in WORKER.items():
        if isinstance(value := getattr(worker, name, None), int | float):
            told["worker"][what] = int(value)
    loaded = getattr(getattr(worker, "model_runner", None), "model_memory_usage", None)
    if isinstance(loaded, int | float):
        told["worker"]["loaded"] = int(loaded)
    cache = getattr(getattr(llm.llm_engine, "vllm_config", None), "cache_config", None)
    if blocks := getattr(cache, "num_gpu_blocks", None):
        told["worker"]["tokens"] = int(blocks) * int(getattr(cache, "block_size", 16))
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    said = llm.chat(_questions(case), params, use_tqdm=False)
    told["prompt tokens"] = [len(one.prompt_token_ids) for one in said]
    if worker is not None:
        import torch

        free, total = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved()
        told["torch"] = {
            "total": total,
            "taken": total - free,
            "reserved": reserved,
            "most allocated": torch.cuda.max_memory_allocated(),
            "outside": total - free - reserved,
        }
    return told


def child(case: FitCase, folder: Path, cards: Sequence[int]) -> None:
    """In the process of a case: its cards, its log and what it tells go into ``folder``."""
    os.setsid()
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, cards))
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    try:
        told = measure(case, folder)
    except Exception:
        told = {"error": traceback.format_exc()[-TAIL:]}
    fresh = folder / "told.json.new"
    fresh.write_text(json.dumps(told), encoding="utf-8")
    fresh.replace(folder / "told.json")
    sys.stdout.flush()
    os._exit(0)  # torch's threads may wait for a card that nobody asks any more


def import_vllm() -> None:
    """Import what every engine needs, once: its forks have it already. Nothing of it may touch a card."""
    import vllm

    for name in ("vllm.v1.engine.llm_engine", "vllm.v1.worker.gpu_worker", "vllm.model_executor.models.qwen2_5_vl"):
        with suppress(Exception):
            __import__(name)
    print(f"vLLM {vllm.__version__} is imported", flush=True)


def _process(method: Literal["spawn", "fork"], case: FitCase, folder: Path, cards: Sequence[int]) -> BaseProcess:
    if method == "spawn":
        return multiprocessing.get_context("spawn").Process(target=child, args=(case, folder, cards))
    return multiprocessing.get_context("fork").Process(target=child, args=(case, folder, cards))


class Measurement:
    """The cases on the cards of this machine: begun as cards get free, ended when they are done or out of time."""

    def __init__(self, run: Run, cards: int, seconds: float) -> None:
        self.run = run
        self.free = list(range(cards))
        self.cards = cards
        self.end = time.monotonic() + seconds
        self.running: list[Started] = []
        self.left: list[FitCase] = []
        import torch

        # A process that has a card's context cannot be forked; then each case imports by itself.
        self.method: Literal["spawn", "fork"] = "spawn" if torch.cuda.is_initialized() else "fork"

    def go(self, cases: Sequence[FitCase]) -> None:
        """All of them."""
        self.left = list(cases)
        with watched(range(self.cards)) as most:
            before = {index: ask_card(index) for index in range(self.cards)}
            while self.left or self.running:
                while self.left and self._begin(self.left[0], most):
                    self.left.pop(0)
                for started in list(self.running):
                    now = time.monotonic()
                    if not started.process.is_alive() or now - started.begun > LONGEST or now > self.end + GRACE:
                        self._finish(started, before, most)
                time.sleep(0.1)

    def _begin(self, case: FitCase, most: dict[int, int]) -> bool:
        """Whether it needs no further look: it runs now, or cannot. One that waits for cards is not overtaken."""
        if case.tp > self.cards:
            self._record(case, "not run", f"{case.tp} cards are needed, {self.cards} here", {})
            return True
        if len(self.free) < case.tp:
            return False
        if self.end - time.monotonic() < (LEAST_WITH_GRAPHS if case.graphs else LEAST):
            self._record(case, "not run", "there was no time left", {})
            return True
        cards, self.free = tuple(self.free[: case.tp]), self.free[case.tp :]
        for index in cards:
            most[index] = 0
        folder = self.run.scratch / re.sub(r"\W+", "-", case.name)
        write_folder(folder / "model", case)
        (folder / "told.json").unlink(missing_ok=True)
        process = _process(self.method, case, folder, cards)
        process.start()
        self.running.append(Started(case, process, folder, cards))
        return True

    def _finish(self, started: Started, before: Mapping[int, Mapping[str, int]], most: Mapping[int, int]) -> None:
        late, took = started.process.is_alive(), time.monotonic() - started.begun
        if late and started.process.pid:
            for pid in process_tree(started.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        started.process.join(timeout=10)
        self._clear(started, before)
        self.running.remove(started)
        file, log = started.folder / "told.json", started.folder / "log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"error": text[-TAIL:]}
        facts: dict[str, Any] = {
            "case": asdict(started.case),
            "logged": read_log(text),
            "card": {
                "total": before[started.cards[0]]["total"],
                "before": max(before[index]["used"] for index in started.cards),
                "most": max(most[index] for index in started.cards),
            },
            **told,
        }
        error = facts.pop("error", "")
        self.free = sorted([*self.free, *started.cards])
        if FORKED_TOO_LATE in error and self.method == "fork":
            # Something that was imported has touched a card after all: from now on each case imports by itself.
            self.method = "spawn"
            self.left.insert(0, started.case)
            return
        if late:
            error = f"not done after {took:.0f} s: {text[-TAIL:]}"
        self._record(started.case, "failed" if error else "passed", error, facts, took)

    def _clear(self, started: Started, before: Mapping[int, Mapping[str, int]]) -> None:
        """End what an engine has left, and wait until its cards are as before: the next one measures what is free."""
        if started.process.pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(started.process.pid, signal.SIGKILL)  # of its own: see `child`
        until = time.monotonic() + FREED
        while time.monotonic() < until:
            if all(ask_card(index)["used"] <= before[index]["used"] + GIB // 4 for index in started.cards):
                return
            time.sleep(0.2)

    def _record(self, case: FitCase, verdict: str, reason: str, facts: dict[str, Any], took: float = 0.0) -> None:
        def tell() -> Mapping[str, Any]:
            if verdict == "failed":
                raise Failed(reason, facts)
            if verdict == "not run":
                raise NotRun(reason)
            return facts

        name = f"fit: {case.name}"
        self.run.step(name, tell)
        steps = (replace(one, seconds=round(took, 1)) if one.name == name else one for one in self.run.record.steps)
        self.run.record = replace(self.run.record, steps=tuple(steps))
        self.run.save()


def main() -> int:
    """Command line: prove.py's words, and the seconds that all of it may take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--case", action="append", default=[], help="only this one, such as '7b-awq'; repeat")
    own, rest = parser.parse_known_args()
    words = prove.read_words(rest)
    begun = time.monotonic()
    # Before vLLM is imported: one process an engine, and its log with all that it measures.
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "DEBUG", "HF_HUB_OFFLINE": "1"}
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # whether there is a card is asked without touching it
    os.environ |= NO_MULTICAST  # as every container of a proof has it
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    seen = prove.machine()
    if "name" not in seen:
        print(f"no card to measure on: {seen['why']}", file=sys.stderr)
        return NO_CARD
    words.scratch.mkdir(parents=True, exist_ok=True)
    record, only = prove.open_record(words, seen), tuple(words.only) or ("*",)
    run = Run(record, words.out, words.scratch, {"image": None}, only=only)
    os.environ |= {key: value for key, value in run.env("image").items() if "CACHE" in key}
    run.step("machine", lambda: seen)
    import pynvml

    pynvml.nvmlInit()
    import_vllm()
    run.record = replace(run.record, versions={**run.record.versions, **_versions()})
    chosen = [case for case in CASES if not own.case or case.name in own.case]
    Measurement(run, int(seen["cards"]), own.seconds - (time.monotonic() - begun)).go(chosen)
    return 0 if run.record.ok else 1


def _versions() -> dict[str, str]:
    import torch
    import transformers  # type: ignore[import-not-found,unused-ignore]
    import vllm

    return {one.__name__: str(one.__version__) for one in (torch, transformers, vllm)}


if __name__ == "__main__":
    sys.exit(main())
