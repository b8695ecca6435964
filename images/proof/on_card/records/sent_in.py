"""A record that somebody sent in, held against what is known: its seal, the matrix, the locks, the list of cards. Pure.

What it cannot do: all that it knows is open, so somebody who wants to can make a record up that passes, by working out
every figure. It finds what was changed, by hand or on its way, and what does not belong together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from images.cards import Card
from images.core import UTC, CardstockError
from images.matrix import Arch, Variant, parse_driver
from images.proof.on_card.records.record import GpuRecord, Step
from images.proof.on_card.records.seal import TOLERANCE, why_not_sealed
from images.proof.on_card.shaped import CASES, answer
from images.proof.smoke import server as smoke

Said = Literal["holds", "refused", "not checked"]
# NVML's total against the memory that a card is sold with, in GiB: ECC and the driver's own share are not told.
LEAST_MEMORY, MOST_MEMORY = 0.88, 1.03
# Clocks differ; so much is not the future yet.
CLOCKS = timedelta(minutes=10)
# Images exist since then.
FIRST_IMAGE = datetime(2025, 11, 1, tzinfo=UTC)
LONGEST_STEP, LONGEST_RUN = 5400.0, timedelta(days=14)
# Seconds below which a step that passed cannot have ended: torch's import alone takes longer. By how a name begins.
SHORTEST = {"stack": 1.0, "canary": 1.0, "transformers: tiny": 2.0, "vllm: tiny": 4.0, "vllm: 3b": 4.0}
CANARY, ANSWERS = "canary on the card", ("vllm: tiny", "transformers: tiny")
SHAPED = frozenset(("vllm: 3b", "vllm: 3b bfloat16", "vllm: 3b triton", "vllm: pair"))
FARTHEST = smoke.RUNNER_UP_TOLERANCE


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what, how it came out, and why where it does not hold."""

    what: str
    said: Said
    why: str = ""


@dataclass(frozen=True)
class PublishedAs:
    """An image of a catalogue: its variant, the hash of its inputs, its manifest and its configuration."""

    variant: str
    input: str
    digest: str
    config: str


@dataclass(frozen=True)
class Known:
    """What a record is held against.

    ``variant`` is that of its name, None where the matrix has none; ``today`` the hash of that image's inputs today;
    ``locked`` package -> version of its lock; ``card`` the one of its name, None for a name that no list has;
    ``published`` None where no catalogue was given; ``others`` are the records that are kept already.
    """

    now: datetime
    variant: Variant | None
    today: str
    locked: Mapping[str, str]
    card: Card | None
    published: Sequence[PublishedAs] | None = None
    others: Sequence[GpuRecord] = ()


def check_record(record: GpuRecord, data: Mapping[str, Any], known: Known) -> tuple[Finding, ...]:
    """What holds, what does not, and what could not be looked at. ``data`` is the JSON that ``record`` was read of."""
    looked = {
        "seal": _seal(record, data),
        "verdict": _verdict(record, data),
        "image": _image(record, known),
        "image's code": _code(record, known),
        "packages": _packages(record, known),
        "card": _card(record, known),
        "driver": _driver(record, known),
        "times": _times(record, known),
        "answers": _answers(record),
        "figures": _figures(record),
    }
    return tuple(_finding(what, list(found)) for what, found in looked.items())


def _finding(what: str, found: list[str]) -> Finding:
    bad = [one for one in found if not one.startswith(_OPEN)]
    if bad:
        return Finding(what, "refused", "; ".join(bad))
    open_ = [one.removeprefix(_OPEN) for one in found]
    return Finding(what, "not checked", "; ".join(open_)) if open_ else Finding(what, "holds")


# Before a reason why something could not be looked at; what else is yielded is a reason to refuse.
_OPEN = "\0"


def _seal(record: GpuRecord, data: Mapping[str, Any]) -> Iterator[str]:
    if record.seal is None:
        yield "it has none: its run did not come to its end, its program is older, or somebody took it off"
        return
    if why := why_not_sealed(data):
        yield why
    if record.seal.device != "cuda":
        yield f"its question was answered on {record.seal.device}, not on a card"


def _verdict(record: GpuRecord, data: Mapping[str, Any]) -> Iterator[str]:
    if data.get("ok", record.ok) != record.ok:
        yield f'it says "ok": {data["ok"]}, its steps say {record.ok}'
    names = [step.name for step in record.steps]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield f"steps that are there twice: {', '.join(twice)}"
    if unlike := [step.name for step in record.steps if (step.verdict == "passed") == bool(step.reason)]:
        yield f"a step has a reason where it passed, or none where it did not: {', '.join(unlike[:3])}"


def _image(record: GpuRecord, known: Known) -> Iterator[str]:
    variant = known.variant
    if variant is None:
        yield f"the matrix has no image {record.variant or 'without a name'}"
        return
    card = _arch(record.capability)
    if card and not any(one.major == card.major and one.minor <= card.minor for one in variant.archs):
        yield f"{variant.id} has no code for {record.capability}"
    if not record.input_hash:
        yield "it does not say of which inputs its image was made"
        return
    if known.published is not None:
        yield from _published(record, known.published)
    elif record.input_hash != known.today:
        yield _OPEN + "its image was made of other inputs than today's; a catalogue says whether it was published"


def _published(record: GpuRecord, published: Sequence[PublishedAs]) -> Iterator[str]:
    same = [one for one in published if (one.variant, one.input) == (record.variant, record.input_hash)]
    named = {record.image_digest, record.image_id} - {""}
    if not same:
        yield f"no image {record.variant} of the inputs {record.input_hash[:12]} was published there"
    elif not named:
        yield _OPEN + "it names no image by its digest; one of its inputs was published"
    elif not any(named & {one.digest, one.config} for one in same):
        yield f"the image {sorted(named)[0][:19]}… was not published there"


def _code(record: GpuRecord, known: Known) -> Iterator[str]:
    """The digest of the device code in the image's libraries: records of one image have the same."""
    own = _audit_digest(record)
    if not own:
        yield _OPEN + "it has no audit of the image's libraries"
        return
    alike = [
        other
        for other in known.others
        if (other.variant, other.input_hash) == (record.variant, record.input_hash) and _audit_digest(other)
    ]
    if wrong := [other.name for other in alike if _audit_digest(other) != own]:
        yield f"the audit's digest is not that of {wrong[0]}, which is of the same image"
    elif not alike:
        yield _OPEN + "no other record of this image has an audit to hold it against"


def _audit_digest(record: GpuRecord) -> str:
    return next((str(step.facts.get("digest", "")) for step in record.steps if step.name == "audit"), "")


def _packages(record: GpuRecord, known: Known) -> Iterator[str]:
    if known.variant is None or not known.locked:
        yield _OPEN + "there is no lock to hold it against"
        return
    wanted = ["torch", "transformers", *(["vllm"] if known.variant.backend == "vllm" else [])]
    if missing := [name for name in wanted if name not in record.versions]:
        yield f"it does not say which {', '.join(missing)}"
    for name, version in record.versions.items():
        if name == "python":
            if not f"{version}.".startswith(f"{known.variant.python}."):
                yield f"Python {version}, the image has {known.variant.python}"
            continue
        locked = known.locked.get(name.lower().replace("_", "-"), "")
        if not locked:
            yield f"{name} {version} is not in the lock"
        elif version.partition("+")[0] != locked.partition("+")[0]:
            yield f"{name} {version}, the lock has {locked}"


def _card(record: GpuRecord, known: Known) -> Iterator[str]:
    if known.card is None:
        yield f"no list of cards has {record.card}"
        return
    if record.capability != known.card.arch.capability:
        yield f"{record.card} has the compute capability {known.card.arch.capability}, not {record.capability}"
    sold = known.card.memory * 2**30
    if not record.memory:
        yield _OPEN + "it does not tell the card's memory"
    elif not LEAST_MEMORY * sold <= record.memory <= MOST_MEMORY * sold:
        yield f"{record.memory / 2**30:.1f} GiB, {record.card} has {known.card.memory:g} GB"
    told = next((step.facts for step in record.steps if step.name == "machine"), {})
    for fact, ours in (("name", record.card), ("capability", record.capability), ("driver", record.driver)):
        if fact in told and told[fact] != ours:
            yield f"its header has the {fact} {ours}, its first step {told[fact]}"
    for step in record.steps:
        seen = step.facts.get("card") if step.name.startswith("stack") else None
        if isinstance(seen, Mapping) and (seen.get("name"), seen.get("capability")) != (record.card, record.capability):
            yield f"torch saw {seen.get('name')} ({seen.get('capability')}), the header has {record.card}"


def _driver(record: GpuRecord, known: Known) -> Iterator[str]:
    if not record.driver:
        yield "it does not say which driver"
        return
    least = known.variant.min_driver if known.variant else None
    try:
        driver = parse_driver(record.driver)
        if least and driver < parse_driver(least):
            yield f"driver {record.driver} is too old for {record.variant}, which needs {least}"
    except CardstockError as error:
        yield error.what


def _times(record: GpuRecord, known: Known) -> Iterator[str]:
    if odd := [step.name for step in record.steps if not 0 <= step.seconds <= LONGEST_STEP]:
        yield f"no step takes so long: {', '.join(odd[:3])}"
    for step in record.steps:
        least = next((least for name, least in SHORTEST.items() if step.name.startswith(name)), 0.0)
        if step.verdict == "passed" and step.seconds < least:
            yield f"{step.name} passed in {step.seconds:g} s, which takes {least:g} at the least"
        inside = [value for value in _numbers(step.facts.get("stages")) if value > step.seconds + 1]
        if inside or any(value > step.seconds + 1 for value in _numbers({"": step.facts.get("seconds")})):
            yield f"{step.name}: a part of it took longer than the whole"
    if not record.created or not record.ended:
        yield _OPEN + "it does not say when it began and ended"
        return
    begun, ended = datetime.fromisoformat(record.created), datetime.fromisoformat(record.ended)
    if max(begun, ended) > known.now + CLOCKS:
        yield "it was made in the future"
    if begun < FIRST_IMAGE:
        yield f"it was made on {begun:%Y-%m-%d}, when there was no image"
    if not timedelta() <= ended - begun <= LONGEST_RUN:
        yield "it ended before it began, or much later"
    elif sum(step.seconds for step in record.steps) > (ended - begun).total_seconds() + 60:
        yield "its steps together took longer than it lasted"


def _numbers(facts: Any) -> list[float]:
    values = facts.values() if isinstance(facts, Mapping) else ()
    return [float(value) for value in values if isinstance(value, int | float)]


def _answers(record: GpuRecord) -> Iterator[str]:
    """What a step that passed says it has seen: golden logits, golden and taught answers."""
    passed = [step for step in record.steps if step.verdict == "passed"]
    canary = [step for step in passed if step.name == CANARY]
    for step in canary:
        error = step.facts.get("greatest relative error")
        if not isinstance(error, float) or not 0 < error <= TOLERANCE:
            yield f"{step.name}: the golden logits are {error} away, allowed is {TOLERANCE:.0e}"
    for step in passed:
        if step.name.startswith(ANSWERS):
            yield from _golden(step)
        elif step.name in SHAPED:
            yield from _taught(step)
    if not canary:
        yield _OPEN + f"the step {CANARY} did not pass, so no golden logits are told"


def _golden(step: Step) -> Iterator[str]:
    said, distances = step.facts.get("said"), step.facts.get("logprob distance")
    if not isinstance(said, Mapping) or not isinstance(distances, Mapping):
        yield f"{step.name}: it passed, and does not tell what was said"
        return
    for golden in smoke.read_golden(smoke.GOLDEN.read_text(encoding="utf-8")):
        text, distance = said.get(golden.name), distances.get(golden.name)
        if text != golden.text:
            yield f"{step.name}: {golden.name} was answered {str(text)[:40]!r}, golden is {golden.text!r}"
        if not isinstance(distance, int | float) or not 0 <= distance <= FARTHEST:
            yield f"{step.name}: {golden.name}: a logprob is {distance} from golden, allowed is {FARTHEST}"


def _taught(step: Step) -> Iterator[str]:
    contents = [facts for facts in step.facts.values() if isinstance(facts, Mapping) and "said" in facts]
    for facts in contents:
        for name in CASES:
            told = facts["said"].get(name) if isinstance(facts["said"], Mapping) else None
            tokens = told.get("tokens") if isinstance(told, Mapping) else None
            wanted = answer(name)
            if not isinstance(tokens, list) or tokens[: len(wanted)] not in (wanted, wanted[:-1]):
                yield f"{step.name}: {name} was answered by other tokens than the taught ones"
    if not contents:
        yield f"{step.name}: it passed, and does not tell what was said"


def _figures(record: GpuRecord) -> Iterator[str]:
    for figure in record.figures:
        values = (figure.value, *figure.runs)
        if not all(math.isfinite(value) and value >= 0 for value in values):
            yield f"{figure.name} is no measurement: {figure.value}"
        elif figure.runs and not min(figure.runs) <= figure.value <= max(figure.runs):
            yield f"{figure.name}: {figure.value} is not among its runs"


def _arch(text: str) -> Arch | None:
    major, _, minor = text.partition(".")
    return Arch(int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
