"""Measurements: named benches give rows of ours against a peer, taken in one run, printed and kept as JSON."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from bench.record import BenchRecord, Row, RunConditions, write_record
from images.core import CardstockError, Report, UsageError

HEADER = ["bench", "what is measured", "this project", "peer or limit", "ratio", "machine"]

Bench = Callable[[], Iterable[Row]]
BENCHES: dict[str, Bench] = {}
# Benches that run only when they are named, and what they take.
HEAVY: dict[str, str] = {}


def bench(name: str, *, heavy: str = "") -> Callable[[Bench], Bench]:
    """Register a function under ``name``; ``heavy`` says what it takes, if that is too much to run unasked.

    Raises ValueError if the name is taken.
    """

    def register(function: Bench) -> Bench:
        if name in BENCHES:
            raise ValueError(f"two benches are named {name!r}")
        BENCHES[name] = function
        if heavy:
            HEAVY[name] = heavy
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
    names: Sequence[str],
    report: Report,
    folder: Path,
    conditions: Callable[[], RunConditions],
    benches: Mapping[str, Bench] | None = None,
) -> list[BenchRecord]:
    """Run the named benches (all, if none is named) and write ``folder``/NAME.json for each.

    ``conditions`` is called before each. Raises UsageError for a name that is not registered. A bench that cannot
    run here is a record that says why, when it was not asked for by name; a file is written only when its bench has
    ended.
    """
    known = BENCHES if benches is None else benches
    for name in names:
        if name not in known:
            raise UsageError(f"no bench is named {name!r}", do=f"take one of: {', '.join(sorted(known)) or 'none yet'}")
    records: list[BenchRecord] = []
    for name in names or sorted(known):
        around = conditions()
        try:
            with report.step(f"bench {name}"):
                measured = tuple(known[name]())
        except CardstockError as error:
            if names:
                raise
            records.append(BenchRecord(name, around, (Row(name, "", None, None, "", why=error.what),)))
            continue
        records.append(BenchRecord(name, around, measured))
        write_record(folder, records[-1])
    return records


def cells(row: Row, machine: str) -> list[str]:
    """A row of the table, under `HEADER`."""
    ours = f"not run: {row.why}" if row.ours is None else _quantity(row.ours, row.unit)
    peer = "-" if row.peer is None else _quantity(row.peer, row.unit)
    if row.against:
        peer = row.against if row.peer is None else f"{peer} ({row.against})"
    return [row.name, row.measures or "-", ours, peer, number(row.ratio), machine]


def number(value: float | None) -> str:
    """Three digits, or all of those before the point; "-" for None."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _quantity(value: float, unit: str) -> str:
    return f"{number(value)} {unit}".rstrip()
