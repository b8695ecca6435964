"""Measurements: named benches give rows of ours against a peer, taken in one run, printed and kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from images import __version__
from images.errors import UsageError
from images.report import Report


@dataclass(frozen=True)
class Row:
    """One measurement: what ``measures`` says, in ``unit``, ours and, if there is one, the peer's."""

    name: str
    measures: str
    ours: float
    peer: float | None
    unit: str

    @property
    def ratio(self) -> float | None:
        """Ours to the peer's, or None without a peer (or with one of 0)."""
        return self.ours / self.peer if self.peer else None


Bench = Callable[[], Iterable[Row]]
BENCHES: dict[str, Bench] = {}


def bench(name: str) -> Callable[[Bench], Bench]:
    """Register a function under ``name``. Raises ValueError if the name is taken."""

    def register(function: Bench) -> Bench:
        if name in BENCHES:
            raise ValueError(f"two benches are named {name!r}")
        BENCHES[name] = function
        return function

    return register


def median_seconds(
    action: Callable[[], object], *, repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The median duration in seconds of ``repeats`` calls, after one that is not counted."""
    return medians({"": action}, repeats=repeats, clock=clock)[""]


def medians(
    actions: dict[str, Callable[[], object]], *, repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """As `median_seconds`, for several that are to be compared: in turns, so that a busy moment hits them alike."""
    for action in actions.values():
        action()
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = clock()
            action()
            taken[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def run_benches(
    names: Sequence[str], report: Report, folder: Path, benches: dict[str, Bench] | None = None
) -> list[Row]:
    """Run the named benches (all, if none is named), print their table, and write ``folder``/NAME.json for each.

    Raises UsageError for a name that is not registered. A file is written only when its bench has ended.
    """
    known = BENCHES if benches is None else benches
    for name in names:
        if name not in known:
            raise UsageError(f"no bench is named {name!r}", do=f"take one of: {', '.join(sorted(known)) or 'none yet'}")
    rows: list[Row] = []
    for name in names or sorted(known):
        with report.step(f"bench {name}"):
            measured = list(known[name]())
        write_json(folder / f"{name}.json", measured)
        rows += measured
    report.table([_cells(row) for row in rows], ["name", "measures", "ours", "peer", "ratio", "unit"])
    return rows


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """The rows and the machine they were taken on, whole or not at all."""
    machine = {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()}
    told = {
        "cardstock": __version__,
        "machine": machine,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def _cells(row: Row) -> list[str]:
    return [row.name, row.measures, _number(row.ours), _number(row.peer), _number(row.ratio), row.unit]


def _number(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"
