"""What a run on a real card has shown: its record, with steps and figures, and what records say of an image.

images/proof/on_card/prove.py writes a record of `SCHEMA` and writes it again after every step. A record of form 1 does
not say which image, which engine, and how it got the card.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = 2
# How a start's engine came about, the `of` of its figures: as images of vLLM 0.25 do it, and as they did before.
FORKED, SPAWNED = "forked, class known", "spawned, class looked at"
Verdict = Literal["passed", "failed", "not run"]
# How the names of steps begin in which the model answers.
SERVING = ("vllm", "transformers", "server")
MEASURING = ("fit: ", "start: ")
# Where a run was: in a container of the image; in the image's own files, unpacked, without an engine; with the image's
# packages on a bare host.
Place = Literal["image", "unpacked", "packages"]
# How the image got the card: by CDI (--device nvidia.com/gpu=…), by `docker run --gpus`, by NVIDIA's runtime
# (--runtime nvidia), or because nothing stood between (without an engine). "": the record does not tell.
Given = Literal["", "cdi", "gpus", "runtime", "host"]


@dataclass(frozen=True)
class Step:
    """One thing tried. ``reason`` is empty when it passed; ``facts`` holds what was seen, as JSON values."""

    name: str
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ActedAs:
    """Another card that the run's card was acted as: ``label`` begins the names of its steps, ``variant`` is the image
    whose decisions were taken, "" where the matrix has none for it.
    """

    label: str
    card: str
    capability: str
    variant: str


@dataclass(frozen=True)
class Figure:
    """One measurement: the median of ``runs``, all in ``unit``.

    ``of`` says of what, by these keys where they mean something: engine (vllm, transformers), content (slimmed,
    untouched, image), attention, dtype, model (tiny, 3b), batch, picture ("1000x1000").
    """

    name: str
    value: float
    unit: str
    of: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Seal:
    """What the image answered to the question that a record's content makes (seal.py).

    ``seed`` is the content's hash; ``device`` where torch computed, "cuda" or "cpu"; ``logits`` float32 as base64.
    """

    seed: str
    device: Literal["cuda", "cpu"]
    logits: str


@dataclass(frozen=True)
class GpuRecord:
    """One run on one machine with a card.

    ``acted`` is empty for a run on the card itself; else the card was made to pass for others, and nothing in the
    record is a run on those, nor one of ``variant`` on ``card``.

    ``capability`` is "9.0"; ``memory`` bytes (0: not told); ``driver`` "" where an old record does not tell it;
    ``created`` UTC in ISO form, "" likewise. ``variant`` is the image that the run stands for and ``input_hash`` that
    image's inputs; both are "" for a run that stands for none. ``place`` is "image" for a run in a container of the
    image, "unpacked" for one in the image's own files without an engine, and "packages" for one with the image's
    packages, slimmed by the build's own code, on a host that has no engine. ``image_digest`` is the image's manifest in
    a registry and ``image_id`` its configuration, both "sha256:…"; ``engine`` is its name and version, such as
    "Docker 29.1.0"; ``given`` is how the card was given. These four are "" where nobody told. ``ended`` is when the
    last step was over, as ``created``; a ``seal`` is put on at the end of a run.
    """

    card: str
    capability: str
    memory: int
    driver: str
    created: str
    place: Place
    variant: str
    input_hash: str
    versions: Mapping[str, str]
    steps: tuple[Step, ...]
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    acted: tuple[ActedAs, ...] = ()
    schema: int = SCHEMA
    name: str = ""
    image_digest: str = ""
    image_id: str = ""
    engine: str = ""
    given: Given = ""
    ended: str = ""
    seal: Seal | None = None

    @property
    def ok(self) -> bool:
        """Nothing failed, and something passed."""
        verdicts = {step.verdict for step in self.steps}
        return "failed" not in verdicts and "passed" in verdicts

    def evidence(self) -> str:
        """One line, such as "NVIDIA H200, driver 580.159: 31 steps passed, 1 not run (records/cards/x.json)"."""
        counts = {word: sum(step.verdict == word for step in self.steps) for word in ("passed", "failed", "not run")}
        summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing was run"
        driver = f", driver {self.driver}" if self.driver else ""
        return f"{self.card}{driver}: steps {summary}" + (f" (records/cards/{self.name}.json)" if self.name else "")

    def as_data(self) -> dict[str, Any]:
        """As JSON values."""
        fields = {key: value for key, value in asdict(self).items() if key != "name"}
        return dict(json.loads(json.dumps({**fields, "schema": SCHEMA, "ok": self.ok})))

    def to_json(self) -> str:
        """As `read_gpu_record` reads it."""
        return json.dumps(self.as_data(), indent=1) + "\n"

    @property
    def measures(self) -> bool:
        """Whether it is a measurement alone, for fit or of starts, which proves nothing of its image."""
        names = [step.name for step in self.steps]
        return any(name.startswith(MEASURING) for name in names) and not any(name.startswith(SERVING) for name in names)

    @property
    def served(self) -> bool:
        """Whether a server, or an engine of one, passed: the model was asked and gave the right answers."""
        return any(step.verdict == "passed" and step.name.startswith(SERVING) for step in self.steps)

    def find_figure(self, name: str, **of: str) -> Figure | None:
        """The first figure of this name whose ``of`` holds these pairs."""
        return next((one for one in self.figures if one.name == name and of.items() <= dict(one.of).items()), None)


def records_of_variant(records: Iterable[GpuRecord], variant_id: str, input_hash: str = "") -> tuple[GpuRecord, ...]:
    """Those that stand for an image; with ``input_hash`` only for the image of exactly these inputs. None is acted."""
    return tuple(
        one
        for one in records
        if not one.acted and one.variant == variant_id and (not input_hash or one.input_hash == input_hash)
    )


@dataclass(frozen=True)
class ActedRun:
    """What a record says of an image on a card that was acted: the steps of that card alone."""

    record: GpuRecord
    acted: ActedAs
    steps: tuple[Step, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the steps that failed."""
        return tuple(step.name for step in self.steps if step.verdict == "failed")

    @property
    def answered(self) -> bool:
        """Whether a server answered rightly: its choices alone are less than "acted as"."""
        answers = [step for step in self.steps if not step.name.endswith((": choices", " refused"))]
        return any(step.verdict == "passed" for step in answers)


def acted_runs(records: Iterable[GpuRecord], variant_id: str) -> tuple[ActedRun, ...]:
    """What acted records say of the image ``variant_id``, a card each, in the records' order."""
    return tuple(
        ActedRun(record, one, tuple(step for step in record.steps if step.name.startswith(f"{one.label}: ")))
        for record in records
        for one in record.acted
        if one.variant == variant_id
    )
