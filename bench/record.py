"""A measurement as it is kept: its rows, and the machine, the day and the inputs that they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from images.core import UsageError, write_atomically

# Where the last good run of each bench is kept; BENCH.md is written from these.
FOLDER = "records/bench"
# What measuring led to; written by hand.
IMPROVEMENTS = "bench/improvements.yaml"
# A machine of which other work has more than this share when a bench begins is called busy.
BUSY = 0.25


@dataclass(frozen=True)
class Row:
    """One measurement: what ``measures`` says, in ``unit``, ours and, if there is one, the peer's or the limit.

    ``against`` names the peer or limit. ``ours`` is None for what did not run, and ``why`` says why. ``image`` is what
    was measured, as "variant@first 12 digits of its input hash", where that is an image. A ``headline`` is shown in
    docs/benchmarks.md as well.
    """

    name: str
    measures: str
    ours: float | None
    peer: float | None
    unit: str
    against: str = ""
    why: str = ""
    image: str = ""
    headline: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours to the peer's, or None without one of them (or with a peer of 0)."""
        return self.ours / self.peer if self.peer and self.ours is not None else None


@dataclass(frozen=True)
class BenchMachine:
    """What was measured on; ``memory`` in bytes."""

    processor: str
    cores: int
    memory: int
    system: str
    python: str

    def __str__(self) -> str:
        made = f"{self.cores} cores of {self.processor}, {self.memory / 1e9:.0f} GB"
        return f"{made}, {self.system}, Python {self.python}"


@dataclass(frozen=True)
class RunConditions:
    """Where and when: ``busy`` is the share of the processors that other work had just before, None if nobody looked.

    ``revision`` is a git commit, with "-dirty" behind it where files differ from it; ``inputs`` the first 12 digits of
    a hash of everything that images are made of. ``date`` is UTC.
    """

    machine: BenchMachine
    busy: float | None
    date: str
    revision: str
    inputs: str

    @property
    def was_busy(self) -> bool:
        """Whether times are longer than they need be."""
        return self.busy is not None and self.busy > BUSY


@dataclass(frozen=True)
class BenchRecord:
    """One run of one bench."""

    bench: str
    conditions: RunConditions
    rows: tuple[Row, ...]

    def to_json(self) -> str:
        """As `from_json` reads it; each row also with its ratio, for others."""
        rows = [{**asdict(row), "ratio": row.ratio} for row in self.rows]
        fields = {"bench": self.bench, **asdict(self.conditions), "rows": rows}
        return json.dumps(fields, indent=1) + "\n"

    @staticmethod
    def from_json(text: str, where: str = "") -> BenchRecord:
        """Read it back. Raises UsageError for a text that is no record."""
        try:
            data: Mapping[str, Any] = json.loads(text)
            around = {name: data[name] for name in ("busy", "date", "revision", "inputs")}
            rows = [{name: value for name, value in row.items() if name != "ratio"} for row in data["rows"]]
            return BenchRecord(
                data["bench"],
                RunConditions(machine=BenchMachine(**data["machine"]), **around),
                tuple(Row(**row) for row in rows),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                "this is not the record of a bench",
                cause=f"{type(error).__name__}: {error}",
                do="measure again: ./inv bench NAME --record",
                where=where,
            ) from error


@dataclass(frozen=True)
class Improvement:
    """A cost that measuring found and that is gone: what it was, before and after, and how that was measured."""

    what: str
    before: str
    after: str
    how: str


def read_improvements(path: Path) -> tuple[Improvement, ...]:
    """Those of a YAML file. Raises UsageError for another form."""
    try:
        return tuple(Improvement(**one) for one in yaml.safe_load(path.read_text(encoding="utf-8")))
    except (TypeError, yaml.YAMLError) as error:
        raise UsageError("this is no list of what was acted on", cause=str(error), where=str(path)) from error


def write_record(folder: Path, record: BenchRecord) -> Path:
    """Keep a record as ``folder``/NAME.json, whole or not at all; the file."""
    path = folder / f"{record.bench}.json"
    write_atomically(path, record.to_json())
    return path


def read_records(folder: Path) -> tuple[BenchRecord, ...]:
    """The records of a folder by name. Raises UsageError for a broken one."""
    files = sorted(folder.glob("*.json"))
    return tuple(BenchRecord.from_json(path.read_text(encoding="utf-8"), str(path)) for path in files)
