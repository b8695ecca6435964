"""A light image against the same with untouched packages, on a host with cards and Docker's CLI.

    PYTHONPATH=CHECKOUT python3 -m images.proof.on_card.lighter --light IMAGE --untouched IMAGE \\
        [--old-light IMAGE --old-untouched IMAGE] --out records/cards/NAME.json --scratch FOLDER [--only GLOB]…

Nothing but Python's standard library is needed on the host; the images' Python does the rest. Both images share one
cache of compiled kernels, so that they run the same ones: what is compared is libraries. The record is written after
each step; with the same --out the next run goes on in it. Exit code 0 when nothing failed, 1 when something did, 3
without a card.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from images.core import UTC
from images.docker import Gpus
from images.proof.on_card import lighter_compare as compare
from images.proof.on_card import lighter_steps as steps
from images.proof.on_card.lighter_containers import LIGHT, UNTOUCHED, Engine, Host, labels_of, nvidia_smi, own_checkout
from images.proof.on_card.records import Figure, GpuRecord, kept_steps
from images.proof.on_card.runs import Failed, NotRun, Run

NO_CARD = 3
HERE = "images.proof.on_card"
VARIANT, INPUT = "dev.cardstock.variant", "dev.cardstock.input"  # images.render.labels, which needs more than Python
# The second card's jobs in their order, each in both images, and the steps that judge them.
STEPS = {
    "transformers": "transformers",
    "tiny": "vllm: golden answers, float16",
    "purpose": "stand-ins called on purpose",
    "old-transformers": "older stack: transformers",
    "old-purpose": "older stack: stand-ins called on purpose",
}
JOBS: dict[str, Callable[[Host, str, str, str], Any]] = {
    job: steps.tiny if job == "tiny" else steps.on_purpose if job.endswith("purpose") else steps.transformers
    for job in STEPS
}
NOTES = (
    "both images started with one cache, which an engine of the untouched packages had compiled into before",
    "NVLink's multicast was off, in NCCL, torch's symmetric memory and vLLM's all-reduce",
    "vLLM's engine ran in the asking process (VLLM_ENABLE_V1_MULTIPROCESSING=0), its KV cache of a size that was given",
)


class Comparison:
    """One run: its images by content, the jobs of the second card, and what steps share."""

    def __init__(self, run: Run, host: Host, images: dict[str, str], old: dict[str, str], layers: int) -> None:
        self.run, self.host, self.images, self.old, self.layers = run, host, images, old, layers
        self.seen = steps.Seen()
        self.cards = 0
        self.pool = ThreadPoolExecutor(1)
        self.jobs: dict[str, dict[str, Future[Any]]] = {}

    def machine(self) -> dict[str, Any]:
        """The cards and their driver."""
        rows = nvidia_smi("--query-gpu=name,compute_cap,memory.total,driver_version").splitlines()
        if not rows:
            raise Failed("nvidia-smi tells of no card")
        name, capability, memory, driver = (part.strip() for part in rows[0].split(","))
        self.cards = len(rows)
        self.run.record = replace(
            self.run.record, card=name, capability=capability, memory=int(memory) * 2**20, driver=driver
        )
        return {"cards": self.cards, "name": name, "driver": driver, "images": self.images, "old images": self.old}

    def begin_second_card(self) -> None:
        """Put its jobs in a queue; on a machine with one card they are waited for, so that speeds are taken alone."""
        card = "1" if self.cards > 1 else "0"
        for job, what in JOBS.items():
            if job == "transformers" or any(fnmatch(STEPS[job], glob) for glob in self.run.only):
                images = self.old if job.startswith("old") else self.images
                self.jobs[job] = {
                    content: self.pool.submit(what, self.host, image, f"{job}-{content}", card)
                    for content, image in images.items()
                }
        if self.cards == 1:
            self.wait()

    def wait(self) -> None:
        """Until the second card's jobs have ended, well or not."""
        for futures in self.jobs.values():
            for future in futures.values():
                future.exception()

    def results(self, job: str) -> dict[str, Any]:
        """What a job's containers told, by content. Raises what they raised, NotRun where there are none."""
        if not self.jobs.get(job):
            raise NotRun("no images were named for it")
        return {content: future.result() for content, future in self.jobs[job].items()}

    def checkpoint(self) -> dict[str, Any]:
        """The 3B-shaped checkpoint, made by the untouched packages; again if its layers are others."""
        words = [f"{HERE}.lighter_checkpoint", "/proof/shaped", "--layers", str(self.layers)]
        return self.host.run(self.images[UNTOUCHED], "checkpoint", words, "0")

    def engines(self) -> dict[str, Any]:
        """Both images' engines on card 0, one after the other; both stay alive. The card's use after each."""
        told: dict[str, Any] = {}
        # vLLM is imported in both while a third one compiles for them: what compiles takes more memory, too.
        self.seen.engines = {name: Engine(self.host, image, name, "0") for name, image in self.images.items()}
        first = steps.compile_first(self.host, self.images[UNTOUCHED], "/proof/shaped", "bfloat16")
        before = steps.card_in_use()
        for name, image in self.images.items():
            told[name] = steps.start(self.host, self.seen, name, image, "/proof/shaped", "bfloat16")
            now = steps.card_in_use()
            self.seen.memory[name], before = now - before, now
            self.run.record = replace(self.run.record, versions=told[name]["start"]["versions"])
        facts = steps.compare_said({name: one["answers"] for name, one in told.items()}, "bfloat16", self.cudnn())
        seconds = {name: one["start"]["seconds"] for name, one in told.items()}
        return facts | {"seconds to start": {"untouched, nothing compiled": first, **seconds}}

    def cudnn(self) -> bool:
        """Whether the light image has cuDNN. Raises what the job with transformers raised."""
        told = self.results("transformers")
        return compare.has_cudnn(told[LIGHT]["libraries"], told[UNTOUCHED]["libraries"])

    def transformers(self, job: str) -> dict[str, Any]:
        """torch and transformers alone."""
        return steps.compare_transformers(self.results(job))

    def tiny(self) -> dict[str, Any]:
        """Golden answers of the tiny checkpoint."""
        return steps.compare_said(
            {n: one["answers"] for n, one in self.results("tiny").items()}, "float16", self.cudnn()
        )

    def speed(self, what: str) -> dict[str, Any]:
        """Both engines in turns, when the second card's jobs have ended."""
        if len(self.seen.engines) < 2:
            raise NotRun("the engines do not run")
        self.wait()
        of = {"engine": "vllm", "attention": "default", "dtype": "bfloat16", "model": f"3b, {self.layers} layers"}
        return steps.judge_ratios(steps.time_both(self.seen.engines, what, self.run.add, of))

    def memory(self) -> dict[str, Any]:
        """Both engines' memory, after all that they were asked."""
        if len(self.seen.engines) < 2:
            raise NotRun("the engines do not run")
        used = {name: steps.used_memory(self.seen, name) for name in self.seen.engines}
        reserved = {name: int(one.ask("memory")["reserved"]) for name, one in self.seen.engines.items()}
        shown = used if all(used.values()) else self.seen.memory
        self.run.add([Figure("memory of the card", value / 2**20, "MiB", {"engine": "vllm", "content": name})
                      for name, value in shown.items() if value > 0])  # fmt: skip
        return steps.judge_memory(used, self.seen.memory, reserved)

    def two_cards(self, eager: bool) -> dict[str, Any]:
        """Tensor parallel on both cards, float16, one image after the other."""
        self.seen.close()
        if self.cards < 2:
            raise NotRun("this machine has one card")
        told: dict[str, Any] = {}
        engines = {name: Engine(self.host, image, f"two-{name}", "0,1") for name, image in self.images.items()}
        try:
            for name, engine in engines.items():
                words = {"cards": 2, "eager": eager, "kv_bytes": steps.KV_BYTES}
                engine.ask("start", model="/proof/shaped", dtype="float16", **words)
                told[name] = [engine.ask("answers", kind="shaped") for _ in range(2)]
                engine.close()
        finally:
            for engine in engines.values():
                engine.close()
        return steps.compare_said(told, "float16", self.cudnn()) | {"graphs": not eager}

    def calls(self) -> dict[str, Any]:
        """Stand-ins that were called by anything but the calls on purpose."""
        names = sorted(path.stem for path in self.host.scratch.glob("*.log") if "purpose" not in path.stem)
        return steps.judge_calls({name: self.host.calls(name) for name in names})

    def purpose(self, job: str) -> dict[str, Any]:
        """Calls on purpose."""
        told = self.results(job)
        return steps.judge_purpose(told, {n: self.host.calls(f"{job}-{n}") for n in told})

    def go(self) -> None:
        """Every step in order; the second card's jobs run beside those of the first until speeds are taken."""
        step = self.run.step
        step("machine", self.machine)
        if not self.cards:
            return
        self.begin_second_card()
        try:
            step("3b checkpoint", self.checkpoint)
            step("vllm: 3b answers, bfloat16", self.engines)
            step(STEPS["transformers"], partial(self.transformers, "transformers"))
            step(STEPS["tiny"], self.tiny)
            step(STEPS["purpose"], partial(self.purpose, "purpose"))
            step(STEPS["old-transformers"], partial(self.transformers, "old-transformers"))
            step(STEPS["old-purpose"], partial(self.purpose, "old-purpose"))
            step("vllm: decode within 2 %", partial(self.speed, steps.DECODE))
            step("vllm: prefill within 2 %", partial(self.speed, steps.PREFILL))
            step("vllm: memory no higher", self.memory)
            step("vllm: two cards, float16", partial(self.two_cards, True))
            step("no call of a stand-in", self.calls)
        finally:
            self.seen.close()
            self.pool.shutdown(cancel_futures=True)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("light", "untouched"):
        parser.add_argument(f"--{name}", required=True)
        parser.add_argument(f"--old-{name}", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--by", choices=("cdi", "gpus"), default="cdi", help="how this engine gives cards")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for every container")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="these steps only")
    words = parser.parse_args()
    env = dict(pair.split("=", 1) for pair in words.env)
    host = Host(words.scratch.absolute(), own_checkout(), Gpus(-1, cdi=words.by == "cdi"), env)
    host.prepare()
    labels = labels_of(words.light)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    named = labels.get(VARIANT, ""), labels.get(INPUT, "")
    record = GpuRecord("", "", 0, "", made, "image", *named, {}, (), (), NOTES, given=words.by)
    record = kept_steps(record, words.out)
    run = Run(record, words.out, host.scratch, {LIGHT: None, UNTOUCHED: None}, only=tuple(words.only) or ("*",))
    old = {LIGHT: words.old_light, UNTOUCHED: words.old_untouched} if words.old_light else {}
    comparison = Comparison(run, host, {LIGHT: words.light, UNTOUCHED: words.untouched}, old, words.layers)
    comparison.go()
    if not comparison.cards:
        return NO_CARD
    return 0 if run.record.ok else 1


if __name__ == "__main__":
    sys.exit(main())
