"""An image's server made to believe that this host's newer card is another one: what it decides there, and answers.

    PYTHONPATH=CHECKOUT python3 -m images.proof.on_card.acting --image IMAGE --card T4 [--card L4]… \\
        --out records/cards/NAME.json --scratch FOLDER [--only GLOB]… [--at-once N] [--seconds S]

Run on a host with a card of 9.0 or newer, Docker's CLI and Python alone; the image must hold code for that card. For
each acted card it takes the environment that the image of the same stack for that card has (flags, arch list), so that
the server decides as that image does. The record is written after each step; with the same --out the next run goes on
in it. Each server has a limit of time. What this shows and what it does not is in docs/acting.md. Exit code 0 when
nothing failed, 1 when something did, 3 without a card.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from images.core import UTC
from images.proof.on_card import acting_judge as judge
from images.proof.on_card.acting_cards import CARDS, ActedCard, acted_card
from images.proof.on_card.acting_containers import ASKING, HERE, PLACE, ActingHost, acted_env, env_of
from images.proof.on_card.lighter import INPUT, NO_CARD, VARIANT
from images.proof.on_card.lighter_containers import gpus_of, labels_of, nvidia_smi, own_checkout
from images.proof.on_card.records import ActedAs, GpuRecord, kept_steps
from images.proof.on_card.runs import Failed, NotRun, Run

NOTES = (
    "acted: no run on the card that is named; docs/acting.md says what was exercised",
    "machine code of torch's and vLLM's libraries was the real card's, and what these libraries decide by asking the "
    "driver themselves; speed says nothing",
)
# Seconds: of programs that are no servers; less than MOST_LATE before the end of all time, no server is started.
SHORT, CHECKPOINT, LEAST = 120.0, 300.0, 60.0
REFUSAL_LIMIT, COMPILING = 150.0, 580.0
# Bytes of the real card for what is compiled beside the servers.
BESIDE = 4 * 2**30
FLASH = "FlashAttention 2 compiled"
BFLOAT16 = r"Bfloat16 is only supported|[Bb]float16.* not supported"
Outcome = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One server in one container: ``steps`` are names with what judges the outcome for each."""

    name: str
    card: ActedCard
    kind: str
    model: str
    steps: tuple[tuple[str, Callable[[Outcome], Mapping[str, Any]]], ...]
    env: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    limit: float = REFUSAL_LIMIT
    cache: str = ""


class Room:
    """The real card's memory, in bytes, for cards that are acted side by side; a card alone always has a place."""

    def __init__(self, size: int) -> None:
        self._left, self._inside = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def place(self, memory: int) -> Iterator[None]:
        """Wait until as much is left, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: memory <= self._left or not self._inside)
            self._left -= memory
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._left += memory
                self._inside -= 1
                self._changed.notify_all()


class Acting:
    """One run: the image, what it prepared and expects, and the jobs."""

    def __init__(self, run: Run, host: ActingHost, cards: Sequence[ActedCard], limit: float, deadline: float) -> None:
        self.run, self.host, self.cards, self.limit, self.deadline = run, host, cards, limit, deadline
        self.image_env = env_of(host.image)
        self.real: Mapping[str, Any] = {}
        self.expected: dict[str, Any] = {}
        self.room = Room(sys.maxsize)

    def machine(self) -> dict[str, Any]:
        """The real card and its driver, and what acting needs, made inside the image."""
        told = self.host.run("prepare", self.host.through("acting_prepare", PLACE), SHORT)
        card = told["card"]
        if "name" not in card:
            raise Failed(f"the image sees no card: {card['why']}", told)
        rows = nvidia_smi("--query-gpu=memory.total").split()
        memory = int(rows[0]) * 2**20 if rows and rows[0].isdecimal() else 0
        self.real = told
        if memory:
            self.room = Room(memory - BESIDE)
        self.run.record = replace(
            self.run.record,
            card=card["name"],
            capability=card["capability"],
            memory=memory,
            driver=card["driver"],
            versions=told["versions"],
        )
        newer = tuple(map(int, card["capability"].split(".")))
        if older := [one.name for one in self.cards if tuple(map(int, one.capability.split("."))) > newer]:
            raise Failed(f"{', '.join(older)} cannot be acted on a card of {card['capability']}", told)
        return {**told, "image": self.host.image, "how": "gpus by CDI" if self.host.gpus.cdi else "--gpus"}

    def expect(self) -> dict[str, Any]:
        """What the matrix's rules say of this image's stack on each card."""
        env = self.image_env
        words = [f"{HERE}.acting_expected", "--stack", env["CARDSTOCK_STACK"], "--engine", env["CARDSTOCK_ENGINE"]]
        words += ["--attention", env["CARDSTOCK_ATTENTION"]]
        archs = sorted({card.capability for card in (*self.cards, *CARDS)})
        self.expected = self.host.run("expected", [*words, *(w for arch in archs for w in ("--arch", arch))], SHORT)
        kept = ("variant", "attention", "dtype", "awq", "refused")
        return {arch: {key: one[key] for key in kept if one[key]} for arch, one in self.expected.items()}

    def env_for(self, name: str, card: ActedCard, env: Mapping[str, str]) -> dict[str, str]:
        """Acted, with the environment of an image."""
        real, ptxas = str(self.run.record.capability), self.real["ptxas"]
        acted = acted_env(card, real, ptxas, name, self.image_env, self.host.shared)
        # Without the front preflight sees the real card, and would judge by it.
        skip = {"CARDSTOCK_SKIP_PREFLIGHT": "1"} if self.real["front missing"] else {}
        return {**env, **skip, **acted}

    def seen(self) -> dict[str, Any]:
        """The first card by every way to ask for it."""
        card = self.cards[0]
        env = {**self.env_for("seen", card, {}), "TRITON_CACHE_DIR": "/cache/triton"}
        told = self.host.run("seen", self.host.through("acting_seen"), SHORT, env, f"seen-{card.label}")
        return judge.judge_seen(told, card, front=not self.real["front missing"])

    def compile_flash(self) -> dict[str, Any]:
        """FlashAttention 2's kernels, which have PTX alone for the real card, into the cache that all servers share."""
        told = self.host.scratch / "warm.json"
        if told.is_file():  # of an earlier run with this folder, whose cache is there, too
            before: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
            if not any(one["why"] for one in before["compiled"]):
                return before
        limit = max(LEAST, min(COMPILING, self.deadline - time.monotonic()))
        compiled = self.host.run("warm", self.host.through("acting_warm"), limit)
        if bad := [f"head {one['head']}: {one['why']}" for one in compiled["compiled"] if one["why"]]:
            raise NotRun(f"not all of it: {'; '.join(bad)}", compiled)
        return compiled

    def needs_flash(self, row: Sequence[Job]) -> bool:
        """Whether a card's servers take FlashAttention 2."""
        expected = [self.expected[job.card.capability] for job in row]
        return any(one["attention"] == "FLASH_ATTN" for one in expected) and not row[0].name.startswith("planted")

    def checkpoint(self, layers: int) -> dict[str, Any]:
        """The 3B-shaped checkpoint, made on the real card; one of an earlier run with as many layers is kept."""
        told = self.host.scratch / "checkpoint.json"
        if told.is_file() and (self.host.scratch / "shaped" / "model.safetensors").is_file():
            before: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
            if before.get("layers") == layers:
                return before
        words = self.host.through("lighter_checkpoint", f"{PLACE}/shaped", "--layers", str(layers))
        return self.host.run("checkpoint", words, CHECKPOINT)

    def jobs_of(self, card: ActedCard) -> list[Job]:
        """A card's servers, in order: those that the matrix says are served, else those that must be refused."""
        expected, label = self.expected[card.capability], card.label
        make = partial(Job, card=card, cache=label, env=expected["env"], limit=self.limit)
        choices = (f"{label}: choices", partial(judge.judge_choices, card=card, expected=expected))
        tiny, shaped = f"{PLACE}/tiny", f"{PLACE}/shaped"
        if not expected["variant"]:
            steps = ((f"{label}: refused", partial(_refusal, judge.PREFLIGHT, "an image without code for it")),)
            return [make(f"{label}-refused", kind="tiny", model=tiny, steps=steps)]
        if expected["awq"]:
            refused = (f"{label}: AWQ refused", partial(_refusal, judge.NO_CAPABILITY, f"AWQ ({expected['awq']})"))
            served = (f"{label}: tiny, not quantised", judge.judge_answers)
            return [
                make(f"{label}-awq", kind="tiny", model=tiny, steps=(refused,), limit=REFUSAL_LIMIT),
                make(f"{label}-plain", kind="tiny", model=f"{tiny}-plain", steps=(choices, served)),
            ]
        return [
            make(f"{label}-tiny", kind="tiny", model=tiny, steps=(choices, (f"{label}: tiny", judge.judge_answers))),
            make(f"{label}-3b", kind="3b", model=shaped, steps=((f"{label}: 3b", judge.judge_answers),)),
        ]

    def planted(self) -> list[Job]:
        """Mistakes that must be noticed; each is over in the time that a server takes to read its configuration."""
        t4, v100 = acted_card("T4"), acted_card("V100")
        make = partial(Job, kind="tiny", model=f"{PLACE}/tiny")
        own = "an image without code for 7.5"
        jobs = []
        if "7.5" not in self.image_env.get("CARDSTOCK_ARCHS", "").split():
            wrong = (("planted: an image for other cards", partial(_refusal, judge.PREFLIGHT, own)),)
            jobs.append(make("planted-image", card=t4, steps=wrong, cache="planted"))
        turing, volta = self.expected["7.5"], self.expected["7.0"]
        if turing["variant"]:
            forced = (("planted: flash-attn on 7.5", partial(_forced, "FLASH_ATTN", t4)),)
            env, flags = forced_attention(turing["variant"], "FLASH_ATTN")
            env = {**turing["env"], **env}
            jobs.append(make("planted-flash", card=t4, steps=forced, env=env, flags=flags, cache="planted"))
            asked = (("planted: bfloat16 on 7.5", partial(_refusal, BFLOAT16, "bfloat16")),)
            # Not quantised: some versions refuse bfloat16 for AWQ on any card.
            plain = replace(make("planted-bf16", card=t4, steps=asked), model=f"{PLACE}/tiny-plain", cache="planted")
            jobs.append(replace(plain, env=turing["env"], flags=("--dtype", "bfloat16")))
        awq = (("planted: AWQ on 7.0", partial(_refusal, judge.NO_CAPABILITY, "AWQ on 7.0")),)
        env = {**volta["env"], "CARDSTOCK_SKIP_PREFLIGHT": "1"}
        return [*jobs, make("planted-awq", card=v100, steps=awq, env=env, cache="planted")]

    def wanted(self, jobs: Sequence[Job]) -> list[Job]:
        """Those with a step that ``--only`` names."""
        return [job for job in jobs if any(fnmatch(n, glob) for n, _ in job.steps for glob in self.run.only)]

    def serve(self, job: Job) -> Outcome:
        """Run a job's container, when the real card has room for it. Raises NotRun where no time is left for it."""
        with self.room.place(job.card.memory):
            return self._serve(job)

    def _serve(self, job: Job) -> Outcome:
        left = self.deadline - time.monotonic()
        if left < LEAST:
            raise NotRun("no time was left")
        limit = min(job.limit, left)
        flags = ["--flags", json.dumps(job.flags)] if job.flags else []
        words = [f"{HERE}.acting_worker", job.kind, job.model, "--limit", str(int(limit)), *flags]
        env = self.env_for(job.name, job.card, job.env)
        print(f"begun: {job.name}, {limit:.0f} s at most", flush=True)
        return self.host.run(job.name, words, limit + ASKING, env, job.cache)

    def outcomes(
        self, rows: Sequence[Sequence[Job]], at_once: int, waiting: Mapping[int, Future[Any]]
    ) -> Iterator[tuple[Job, Outcome | Exception]]:
        """Every job's outcome as it comes: the jobs of a row one after the other, ``at_once`` rows side by side.

        ``waiting`` has, by the id of a row, what must be over before its first job.
        """
        told: queue.Queue[tuple[Job, Outcome | Exception]] = queue.Queue()

        def work(row: Sequence[Job]) -> None:
            ended = ""
            if id(row) in waiting:
                waiting[id(row)].exception()
            for job in row:
                try:
                    if ended:
                        raise NotRun(f"{ended} ended, so this was not tried")
                    outcome = self.serve(job)
                    refused = any("refused" in name or "planted" in name for name, _ in job.steps)
                    ended = job.name if outcome["how"] == "ended" and not refused else ""
                    told.put((job, outcome))
                except Exception as error:
                    told.put((job, error))

        with ThreadPoolExecutor(at_once) as pool:
            # Those that wait go last: they would keep others from a place.
            for row in sorted(rows, key=lambda row: id(row) in waiting):
                pool.submit(work, row)
            for _ in range(sum(map(len, rows))):
                yield told.get()

    def go(self, layers: int, at_once: int, planted: bool) -> None:
        """Every step in order."""
        self._always("machine", self.machine)
        if not self.run.record.card:
            return
        self._always("expected", self.expect)
        if not self.expected:
            return
        self.run.step("the acted card is seen", self.seen)
        rows = [self.wanted(self.jobs_of(card)) for card in self.cards]
        if any(job.kind == "3b" for row in rows for job in row):
            self._always("3b checkpoint", partial(self.checkpoint, layers))
        acted = tuple(
            ActedAs(card.label, card.name, card.capability, self.expected[card.capability]["variant"])
            for card, row in zip(self.cards, rows, strict=True)
            if row
        )
        flash = [row for row in rows if row and self.needs_flash(row)]
        if flash and at_once == 1:
            self._always(FLASH, self.compile_flash)
        known = {one.label: one for one in (*self.run.record.acted, *acted)}
        self.run.record = replace(self.run.record, acted=tuple(known.values()))
        mistakes = self.wanted(self.planted()) if planted else []
        with ThreadPoolExecutor(1) as beside:
            compiled = beside.submit(_caught, self.compile_flash) if flash and at_once > 1 else None
            waiting = {id(row): compiled for row in flash} if compiled else {}
            for job, outcome in self.outcomes([*filter(None, [*rows, mistakes])], at_once, waiting):
                for name, verdict in job.steps:
                    self.run.step(name, partial(_judge, verdict, outcome))
            if compiled:
                self._always(FLASH, partial(_judge, dict, compiled.result()))

    def _always(self, name: str, action: Callable[[], Mapping[str, Any]]) -> None:
        """A step that others need, whatever ``--only`` says."""
        only, self.run.only = self.run.only, ("*",)
        try:
            self.run.step(name, action)
        finally:
            self.run.only = only


def _judge(verdict: Callable[[Outcome], Mapping[str, Any]], outcome: Outcome | Exception) -> Mapping[str, Any]:
    if isinstance(outcome, Exception):
        raise outcome
    return verdict(outcome)


def _caught(action: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any] | Exception:
    """What an action gives or raises, to be judged later."""
    try:
        return action()
    except Exception as error:
        return error


def _refusal(pattern: str, what: str, outcome: Outcome) -> Mapping[str, Any]:
    return judge.judge_refusal(outcome, pattern, what)


def _forced(attention: str, card: ActedCard, outcome: Outcome) -> Mapping[str, Any]:
    return judge.judge_forced(outcome, attention, card)


def forced_attention(variant: str, attention: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables and flags by which a variant's vLLM is told its attention: a variable before 0.13, then a flag."""
    version = re.search(r"vllm(\d+)\.(\d+)", variant)
    if version and (int(version[1]), int(version[2])) < (0, 13):
        return {"VLLM_ATTENTION_BACKEND": attention}, ()
    return {}, ("--attention-backend", attention)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--card", action="append", default=[], metavar="NAME", help="all, where none is named")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=36, help="of the 3B shape's text model")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds until a server must be healthy")
    parser.add_argument("--seconds", type=float, default=1e9, help="no server is started when these are nearly over")
    parser.add_argument("--at-once", type=int, default=1, help="cards that are acted side by side")
    parser.add_argument("--no-planted", action="store_true", help="no planted mistakes")
    parser.add_argument("--by", choices=("cdi", "gpus"), default="cdi", help="how this engine gives cards")
    parser.add_argument("--device", action="append", default=[], help="this card of the host alone, such as 1; repeat")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for every container")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="these steps only")
    return parser.parse_args()


def main() -> int:
    """Run it."""
    begun = time.monotonic()
    words = parse()
    cards = [acted_card(name) for name in words.card] or list(CARDS)
    env = dict(pair.split("=", 1) for pair in words.env)
    gpus = gpus_of(words.device, words.by)
    host = ActingHost(words.image, words.scratch.absolute(), own_checkout(), gpus, env, words.at_once > 1)
    host.prepare()
    labels = labels_of(words.image)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    named = labels.get(VARIANT, ""), labels.get(INPUT, "")
    record = GpuRecord("", "", 0, "", made, "image", *named, {}, (), (), NOTES, given=words.by)
    run = Run(kept_steps(record, words.out), words.out, host.scratch, {"image": None}, only=tuple(words.only) or ("*",))
    acting = Acting(run, host, cards, words.limit, begun + words.seconds)
    acting.go(words.layers, words.at_once, not words.no_planted)
    if not run.record.card:
        return NO_CARD
    return 0 if run.record.ok else 1


if __name__ == "__main__":
    sys.exit(main())
