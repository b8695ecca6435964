"""From `docker run` to the first token, stage by stage: without fit's settings for a shorter start, and with them.

On a machine with `.venv`, what a server is told with and without them, for a model and a card:

    .venv/bin/python -m bench.start_breakdown plan --model 3b-awq --card H100 --out plan.json

On the host with the card and the image, where Python alone is enough (numpy for the pictures), and Docker's CLI:

    PYTHONPATH=. python3 -m bench.start_breakdown run --plan plan.json --image IMAGE --model FOLDER --out RECORD.json \\
        --scratch FOLDER [--rounds 2] [--by cdi|gpus|none] [--only GLOB]…

Then, of a server of the same checkpoint that was started otherwise, as `./inv serve --artifact FILE --served measured`:

    PYTHONPATH=. python3 -m bench.start_breakdown ask --image IMAGE --out RECORD.json --port PORT --of "fetched code"

FOLDER holds a checkpoint; "tiny" makes the tiny one. Each setting is started with an empty cache of its own, then
`--rounds` times with what that start has left, the settings in turns. The last start of each is told to end where
compiled code is not read (VLLM_FORCE_AOT_LOAD), if the version can. Each start answers the same questions; those with
kept caches are timed while they decode and read. The record is written after each step. Exit code 0 when nothing
failed, 1 when something did.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.start_stages import (
    FIRST,
    HEALTHY,
    Line,
    compare_answers,
    compiled_code,
    plan_told,
    ratio,
    stage_ends,
    stage_seconds,
    timed_lines,
)
from images.core import UTC, UsageError, process, read_json, write_atomically
from images.docker import NO_CARDS, ContainerSpec, Gpus, Mount, docker_words
from images.proof.on_card.records import Figure, GpuRecord, kept_steps
from images.proof.on_card.runs import (
    INPUT,
    NO_MULTICAST,
    VARIANT,
    Failed,
    NotRun,
    Run,
    gpus_of,
    labels_of,
    nvidia_smi,
    stream,
    versions_in,
)
from images.proof.on_card.shaped import CASES, messages, noise_message
from images.proof.smoke import Client, chat_request
from images.proof.tiny_model import picture, write_checkpoint

if TYPE_CHECKING:
    from images.context import Context

MODELS, CACHE, NAME = "/models", "/cache", "measured"
BEFORE = "before"
EMPTY, KEPT, CHECKED = "empty", "kept", "kept, read or end"
PORT, LIMIT, GRACE = 18_790, 900.0, 40
# Tokens that are decoded for a speed, and how often a prompt is read for one.
DECODED, READINGS = 400, 40
# A text's length in repeated words; the server says how many tokens that was.
TEXTS = (20, 60, 200)
WITHIN, LOGPROBS = 0.98, 0.05
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What a server is told beyond the image's own: flags and environment."""

    flags: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """What is compared. ``seqs`` requests at a time are promised; ``check`` is the environment of the last starts."""

    model: str
    variant: str
    seqs: int
    settings: Mapping[str, Settings]
    check: Mapping[str, str]

    def to_json(self) -> str:
        """As a file holds it."""
        told = {name: {"flags": list(one.flags), "environment": dict(one.environment)}
                for name, one in self.settings.items()}  # fmt: skip
        data = {"model": self.model, "variant": self.variant, "seqs": self.seqs, "settings": told}
        return json.dumps({**data, "check": dict(self.check)}, indent=1) + "\n"


def read_plan(path: Path) -> Plan:
    """Raises UsageError for a file that is no plan."""
    data = read_json(path, "write it anew: python -m bench.start_breakdown plan", most=MOST_BYTES)
    try:
        settings = {
            str(name): Settings(tuple(map(str, one["flags"])), {str(k): str(v) for k, v in one["environment"].items()})
            for name, one in data["settings"].items()
        }
        check = {str(k): str(v) for k, v in data["check"].items()}
        plan = Plan(str(data["model"]), str(data["variant"]), int(data["seqs"]), settings, check)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} is no plan of starts", cause=repr(error), do="python -m bench.start_breakdown plan --out FILE"
        ) from error
    if BEFORE not in plan.settings or not 1 <= plan.seqs <= 1024 or len(plan.settings) > 8:
        raise UsageError(
            f"{path} is no plan of starts", cause=f"it needs {BEFORE!r} among 1 to 8 settings, and 1 to 1024 requests"
        )
    return plan


def make_plan(context: Context, model: str, card: str, variant: str) -> Plan:
    """What fit sets for a model on a card that is known by name, and on the same card once NVML has told of it."""
    from images.cards import LocalCard, LocalMachine
    from images.run.fit import FitOptions, aot_check, environment, find_fit, server_flags, start_settings

    named = find_fit(context, FitOptions(model, (card,), variant=variant))
    ask = named.ask
    here = LocalMachine(cards=(LocalCard(ask.card, "GPU-0", ask.arch, ask.usable),))
    seen = replace(named, ask=replace(ask, on=replace(ask.on, machine=here)))
    added = start_settings(named)
    words = server_flags(named)
    shorter = {name: value for name, value in environment(named).items() if (name, value) not in added.environment}
    settings = {BEFORE: Settings(tuple(words[: len(words) - len(added.flags)]), shorter)}
    for name, found in (("after, memory seen", seen), ("after, by name", named)):
        made = Settings(tuple(server_flags(found)), environment(found))
        if made not in settings.values():
            settings[name] = made
    pins = [ask.variant.pin(name) for name in ("vllm", "torch")]
    check = aot_check(*(pin.version if pin else "0" for pin in pins))
    return Plan(ask.model.name, ask.variant.id, named.load.seqs, settings, check)


@dataclass
class Started:
    """A server in a container: its log with times, and when it was healthy. Seconds count from `docker run`."""

    port: int
    begun: float
    lines: list[Line] = field(default_factory=list)
    healthy: float = 0.0
    code: int | None = None

    def tail(self, count: int = 20) -> str:
        """The end of its log."""
        return "\n".join(text for _, text in self.lines[-count:])


@dataclass(frozen=True)
class Host:
    """The image, the folder that its containers share with this process, the checkpoint, and how cards are given."""

    image: str
    scratch: Path
    model: Path
    gpus: Gpus
    port: int = PORT
    env: Mapping[str, str] = field(default_factory=dict)

    def spec(self, name: str, settings: Settings, cache: Path, more: Mapping[str, str]) -> ContainerSpec:
        """The server as ./inv serve has it, on the host's network: a GPU host's engine may have no other."""
        own = {
            **NO_MULTICAST,
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            "CARDSTOCK_PORT": str(self.port),
            "VLLM_HOST_IP": "127.0.0.1",
        }
        words = ("--served-model-name", NAME, *settings.flags, "--host", "127.0.0.1")
        return ContainerSpec(
            self.image,
            words,
            name=name,
            env=tuple({**own, **settings.environment, **more, **self.env}.items()),
            mounts=(Mount(str(self.model), MODELS), Mount(str(cache), CACHE, read_only=False)),
            gpus=self.gpus,
            shm=4,
            network="host",
            healthcheck=False,
        )

    @contextmanager
    def served(self, name: str, settings: Settings, cache: Path, more: Mapping[str, str]) -> Iterator[Started]:
        """Started, healthy, and gone afterwards; its log is left in the scratch folder. Raises Failed."""
        argv = docker_words(self.spec(name, settings, cache, more), foreground=True)
        server = Started(self.port, time.monotonic())

        def work() -> None:
            try:
                server.code = process.stream(
                    argv, lambda line: server.lines.append((time.monotonic() - server.begun, line)), check=False
                )
            finally:
                server.code = 125 if server.code is None else server.code

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while not answers(self.port):
                if server.code is not None:
                    raise Failed(f"it ended with {server.code}:\n{server.tail()}")
                if time.monotonic() - server.begun > LIMIT:
                    raise Failed(f"not healthy after {LIMIT:.0f} s:\n{server.tail()}")
                time.sleep(0.05)
            server.healthy = time.monotonic() - server.begun
            yield server
        finally:
            process.run(["docker", "stop", "--time", "30", name], check=False, timeout=GRACE)
            process.run(["docker", "rm", "--force", name], check=False, timeout=GRACE)
            thread.join(timeout=GRACE)
            text = "\n".join(f"{at:8.2f} {line}" for at, line in server.lines)
            (self.scratch / f"{name}.log").write_text(text + "\n", encoding="utf-8")


def answers(port: int) -> bool:
    """Whether /health does."""
    with suppress(Exception):
        return Client(port).get("/health").status == 200
    return False


def text_message(text: str) -> list[dict[str, Any]]:
    """A question without a picture."""
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


def questions(tiny: bool) -> dict[str, list[dict[str, Any]]]:
    """What each start is asked: what the checkpoint has learnt, and texts whose answers nobody taught."""
    if not tiny:
        taught = {name: messages(name) for name in CASES}
    else:
        url = picture.data_url("red", 56, 56)
        seen = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What colour is this?"}]
        taught = {"picture-red": [{"role": "user", "content": seen}], "text": text_message("Say hello")}
    return taught | {text: text_message(text) for text in ("What colour is this?", "Say hello to a tiny model " * 3)}


def say(port: int, question: Sequence[Mapping[str, Any]], tokens: int = 24) -> dict[str, Any]:
    """One greedy answer: its tokens by id and their logprobs."""
    request = {**chat_request(NAME, question, max_tokens=tokens, token_ids=True), "top_logprobs": 0}
    told = Client(port).call("POST", "/v1/chat/completions", request).json()
    rows = (told["choices"][0].get("logprobs") or {}).get("content") or []
    return {"tokens": [row["token"] for row in rows], "logprobs": [row["logprob"] for row in rows]}


def all_answers(port: int, tiny: bool) -> dict[str, Any]:
    """Each question alone, then all at once."""
    asked = questions(tiny)
    said = {name: say(port, question) for name, question in asked.items()}
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda question: say(port, question), asked.values()))
    return said | {f"{name}, together": answer for name, answer in zip(asked, together, strict=True)}


def _request(question: Sequence[Mapping[str, Any]], tokens: int) -> dict[str, Any]:
    return {"model": NAME, "messages": list(question), "max_tokens": tokens, "temperature": 0, "ignore_eos": True}


def decode_speed(port: int, batch: int, tokens: int) -> float:
    """Tokens a second of all requests together, while all of them decode."""
    begun = time.monotonic()
    asked = [_request(text_message(f"Count {number}"), tokens) for number in range(batch)]
    with ThreadPoolExecutor(batch) as pool:
        told = list(pool.map(lambda request: stream(port, request, begun), asked))
    first, last = max(one.first for one in told), min(one.last for one in told)
    return sum(one.between(first, last) for one in told) / max(last - first, 1e-9)


def reading_seconds(port: int, question: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from a request to its first token."""
    return stream(port, _request(question, 1), time.monotonic()).first


def speeds(port: int, seqs: int, tiny: bool, decoded: int) -> dict[str, list[float]]:
    """Runs of each speed, by name; the first of each kind is not kept."""
    taken: dict[str, list[float]] = {}
    for batch in sorted({1, seqs}):
        runs = [decode_speed(port, batch, decoded) for _ in range(4 if batch == 1 else 8)]
        taken[f"decode, batch {batch}"] = runs[1:]
    asked: dict[str, Callable[[int], list[dict[str, Any]]]] = {
        f"text of {words} words": partial(_text, words) for words in TEXTS
    }
    if not tiny:
        asked["picture"] = noise_message
    for name, make in asked.items():
        taken[f"first token, {name}"] = [reading_seconds(port, make(1000 + at)) for at in range(READINGS + 1)][1:]
    return taken


def _text(words: int, seed: int) -> list[dict[str, Any]]:
    """A text that no other seed has: a kept prefix would not be read again."""
    return text_message(f"{seed} " + "hello " * words)


class Breakdown:
    """One run: the starts in their order, and what is said of them together."""

    def __init__(self, run: Run, host: Host, plan: Plan, rounds: int, tiny: bool, decoded: int) -> None:
        self.run, self.host, self.plan, self.rounds = run, host, plan, rounds
        self.tiny, self.decoded = tiny, decoded
        self.said: dict[str, dict[str, Any]] = {}
        self.taken: dict[str, dict[str, list[float]]] = {name: {} for name in plan.settings}
        self.totals: dict[tuple[str, str], list[dict[str, float]]] = {}
        self.read: dict[str, str] = {}
        self.there = {step.name for step in run.record.steps if step.verdict == "passed"}
        for step in run.record.steps:
            if step.verdict == "passed" and step.name.startswith("start: "):
                self._take(step.name, step.facts)

    def _take(self, name: str, facts: Mapping[str, Any]) -> None:
        """What a start has told, of this run or of an earlier one with the same record."""
        which = facts["start"]
        self.said[name], self.read[name] = dict(facts["answers"]), str(facts["compiled code"])
        for what, runs in facts["speeds"].items():
            self.taken.setdefault(which["settings"], {}).setdefault(what, []).extend(runs)
        totals = self.totals.setdefault((which["settings"], which["caches"]), [])
        totals.append({**facts["stages"], "all": facts["ends"][FIRST]})

    def start(self, name: str, caches: str, number: int) -> dict[str, Any]:
        """One start: where its time went, what it answered, how fast it was."""
        settings, cache = self.plan.settings[name], self._cache(name, caches == EMPTY)
        more = self.plan.check if caches == CHECKED else {}
        question = questions(self.tiny)["text"]  # making their pictures takes a second, which is none of the start
        with self.host.served(f"cardstock-start-{_plain(name)}-{number}", settings, cache, more) as server:
            first = stream(self.host.port, _request(question, 1), server.begun).first
            ends = stage_ends(server.lines) | {HEALTHY: round(server.healthy, 3), FIRST: round(first, 3)}
            answered = all_answers(self.host.port, self.tiny)
            taken = {} if caches == EMPTY else speeds(self.host.port, self.plan.seqs, self.tiny, self.decoded)
        kind = EMPTY if caches == EMPTY else KEPT
        facts = {
            "start": {"settings": name, "caches": kind, "number": number},
            "stages": stage_seconds(ends),
            "ends": ends,
            "compiled code": compiled_code(server.lines),
            "startup plan": plan_told(server.lines),
            "log": timed_lines(server.lines),
            "speeds": {what: [round(run, 4) for run in runs] for what, runs in taken.items()},
            "answers": answered,
            "settings": {"flags": list(settings.flags), "environment": {**settings.environment, **more}},
        }
        self._take(f"start: {name}, {kind} caches, {number}", facts)
        self._figures(name, kind)
        return facts

    def _cache(self, name: str, fresh: bool) -> Path:
        """The settings' own cache: a new folder for a start with nothing, else the newest there is."""
        places = self.host.scratch / "cache"
        count = len(list(places.glob(f"{_plain(name)}-*")))
        if not fresh and not count:
            raise NotRun("no start with an empty cache has left one")
        folder = places / f"{_plain(name)}-{count if fresh else count - 1}"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # the container's user is another
        return folder

    def _figures(self, name: str, caches: str) -> None:
        """The medians of all starts of a kind so far."""
        rows = self.totals[name, caches]
        of = {"settings": name, "caches": caches}
        figures = []
        for stage in dict.fromkeys(stage for row in rows for stage in row):
            runs = tuple(row[stage] for row in rows if stage in row)
            what = "start to first token" if stage == "all" else f"start: {stage}"
            figures.append(Figure(what, median(runs), "s", of, runs))
        self.run.add(figures)

    def same_answers(self) -> dict[str, Any]:
        """Every start's answers against those of the first one."""
        if len(self.said) < 2:
            raise NotRun("fewer than two starts answered")
        (first, known), *others = self.said.items()
        return _same(first, known, dict(others))

    def speed(self, kind: str, judged: str = "") -> dict[str, Any]:
        """Speeds of each setting over those before: more is faster. Only names with ``judged`` decide."""
        names = [name for name in self.plan.settings if name != BEFORE]
        ratios: dict[str, dict[str, float]] = {}
        for name in names:
            for what, runs in self.taken[name].items():
                peers = self.taken[BEFORE].get(what, [])
                if what.startswith(kind) and runs and peers:
                    # Seconds are better when they are fewer.
                    faster = ratio(peers, runs) if what.startswith("first token") else ratio(runs, peers)
                    ratios.setdefault(name, {})[what] = faster
        if not any(judged in what for row in ratios.values() for what in row):
            raise NotRun(f"no {judged or kind} was measured with and without the settings", {"ratios": ratios})
        slow = [(name, what, value) for name, row in ratios.items() for what, value in row.items()
                if judged in what and value < WITHIN]  # fmt: skip
        sure = [f"{name}: {what} {value}" for name, what, value in slow if self._spread(name, what) <= 1 - WITHIN]
        if sure:
            raise Failed("; ".join(sure), {"ratios": ratios})
        if slow:
            told = (
                f"{name}: {what} {value}, and runs of one start are {100 * self._spread(name, what):.0f} % apart"
                for name, what, value in slow
            )
            raise NotRun(f"2 % cannot be told: {'; '.join(told)}", {"ratios": ratios})
        return {"ratios": ratios}

    def _spread(self, name: str, what: str) -> float:
        """How far apart the runs of one start are, as a part of their median: of the settings, or of those before."""
        taken = [
            facts["speeds"][what]
            for step in self.run.record.steps
            if step.name.startswith("start: ") and step.verdict == "passed"
            for facts in [step.facts]
            if facts["start"]["settings"] in {name, BEFORE} and facts["speeds"].get(what)
        ]
        return max(((max(runs) - min(runs)) / median(runs) for runs in taken), default=0.0)

    def nothing_compiled(self) -> dict[str, Any]:
        """Starts with kept caches read their compiled code."""
        kept = {name: told for name, told in self.read.items() if f", {EMPTY} caches" not in name}
        if not any(kept.values()):
            raise NotRun("no log tells of compiled code: this server compiles none, or none was started")
        if wrong := [name for name, told in kept.items() if told != "read"]:
            raise Failed(f"not all of it was read: {', '.join(wrong)}", kept)
        return kept

    def go(self) -> None:
        """Every step in order; a start that the record has already is not made again."""
        for name in self.plan.settings:
            self._once(name, EMPTY, 0)
        for number in range(1, self.rounds + 1):
            last = number == self.rounds and bool(self.plan.check)
            for name in list(self.plan.settings)[:: 1 if number % 2 else -1]:
                self._once(name, CHECKED if last else KEPT, number)
        step = self.run.step
        step("tokens the same, logprobs near", self.same_answers)
        step("decode within 2 %", partial(self.speed, "decode"))
        step("first token of a picture within 2 %", partial(self.speed, "first token", "picture"))
        step("kept compiled code is read", self.nothing_compiled)

    def _once(self, name: str, caches: str, number: int) -> None:
        told = f"start: {name}, {EMPTY if caches == EMPTY else KEPT} caches, {number}"
        if told not in self.there:
            self.run.step(told, partial(self.start, name, caches, number))


def _same(first: str, known: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Answers by the start that gave them, held against those of the first. Raises Failed."""
    compared = {name: compare_answers(known, answered) for name, answered in others.items()}
    facts = {"against": first, "starts": compared}
    if wrong := [name for name, one in compared.items() if not one["same tokens"]]:
        raise Failed(f"other tokens than {first}: {', '.join(wrong)}", facts)
    if far := [name for name, one in compared.items() if one["logprob distance"] > LOGPROBS]:
        raise Failed(f"logprobs farther than {LOGPROBS} from {first}: {', '.join(far)}", facts)
    return facts


def ask(run: Run, port: int, name: str, tiny: bool) -> None:
    """Ask a server that runs what each start was asked, and hold its answers against those of the record's first."""

    def compare() -> dict[str, Any]:
        started = {step.name: step.facts["answers"] for step in run.record.steps if "answers" in step.facts}
        if not started:
            raise NotRun("the record has no start")
        first = next(iter(started))
        return _same(first, started[first], {name: all_answers(port, tiny)})

    run.step(f"tokens the same, logprobs near: {name}", compare)


def _plain(name: str) -> str:
    """A name for a container or a folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def new_record(image: str, given: str) -> GpuRecord:
    """The machine and the image, before anything has run."""
    labels = labels_of(image)
    rows = nvidia_smi("--query-gpu=name,compute_cap,memory.total,driver_version").splitlines()
    card, capability, memory, driver = ([part.strip() for part in rows[0].split(",")] if rows else ["", "", "0", ""])[
        :4
    ]
    image_id = process.run(["docker", "image", "inspect", "--format", "{{.Id}}", image], timeout=60).out.strip()
    engine = process.run(["docker", "version", "--format", "{{.Server.Version}}"], timeout=60).out.strip()
    return GpuRecord(
        card or f"no card: {platform.machine()}, {platform.system()} {platform.release()}",
        capability,
        int(memory) * 2**20,
        driver,
        datetime.now(UTC).isoformat(timespec="seconds"),
        "image",
        labels.get(VARIANT, ""),
        labels.get(INPUT, ""),
        versions_in(image),
        (),
        (),
        ("seconds count from `docker run`; the log's lines are timed as they arrive",),
        image_id=image_id,
        engine=f"Docker {engine}",
        given="cdi" if given == "cdi" and rows else "gpus" if rows else "",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    planned = kinds.add_parser("plan", help="write what a server is told with and without the settings")
    planned.add_argument("--model", default="3b-awq")
    planned.add_argument("--card", required=True)
    planned.add_argument("--variant", default="")
    planned.add_argument("--out", type=Path, required=True)
    ran = kinds.add_parser("run", help="start, ask, compare")
    for name in ("--plan", "--out", "--scratch"):
        ran.add_argument(name, type=Path, required=True)
    ran.add_argument("--image", required=True)
    ran.add_argument("--model", required=True, help="a checkpoint's folder, or tiny")
    ran.add_argument("--rounds", type=int, default=2)
    ran.add_argument("--decoded", type=int, default=DECODED, help="tokens that a request decodes for a speed")
    ran.add_argument("--port", type=int, default=PORT)
    ran.add_argument("--by", choices=("cdi", "gpus", "none"), default="cdi", help="how this engine gives cards")
    ran.add_argument("--device", default="0", help="the card by number or UUID, or all")
    ran.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for every container")
    ran.add_argument("--only", action="append", default=[], metavar="GLOB", help="these steps only")
    asked = kinds.add_parser("ask", help="hold a running server's answers against the record's")
    asked.add_argument("--image", required=True)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--port", type=int, required=True)
    asked.add_argument("--of", required=True, metavar="NAME", help="how it was started, as the record shall say")
    asked.add_argument("--tiny", action="store_true", help="it serves the tiny checkpoint")
    words = parser.parse_args(argv)
    if words.kind == "ask":
        record = kept_steps(new_record(words.image, "cdi"), words.out)
        run = Run(record, words.out, words.out.parent, {})
        ask(run, words.port, words.of, words.tiny)
        return 0 if run.record.ok else 1
    if words.kind == "plan":
        from images.context import Context
        from images.render import Checkout

        context = Context(Checkout(Path(__file__).parents[1]))
        write_atomically(words.out, make_plan(context, words.model, words.card, words.variant).to_json())
        return 0
    plan, scratch, tiny = read_plan(words.plan), words.scratch.absolute(), words.model == "tiny"
    scratch.mkdir(parents=True, exist_ok=True)
    model = write_checkpoint(scratch / "tiny").folder if tiny else Path(words.model).absolute()
    gpus = NO_CARDS if words.by == "none" else gpus_of(() if words.device == "all" else (words.device,), words.by)
    env = dict(pair.split("=", 1) for pair in words.env)
    host = Host(words.image, scratch, model, gpus, words.port, env)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the container goes too
    record = kept_steps(new_record(words.image, words.by), words.out)
    run = Run(record, words.out, scratch, {}, only=tuple(words.only) or ("*",))
    Breakdown(run, host, plan, words.rounds, tiny, words.decoded).go()
    return 0 if run.record.ok else 1


if __name__ == "__main__":
    sys.exit(main())
