"""`invoke bench`: measure, show the one table, keep what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench import frame, plots
from bench.machine import run_conditions
from bench.page import with_measurements as filled
from bench.record import FOLDER, IMPROVEMENTS, BenchRecord, read_improvements, read_records, write_record
from images.core import Report
from images.proof.on_card.records import read_gpu_records
from images.render import Checkout, document

# What the last run of each bench found here; git does not keep it.
RESULTS = "build/bench"
GPU_RECORDS = "records/cards"


def register_all(checkout: Checkout) -> dict[str, str]:
    """Make every bench known, once: name -> what it takes, "" for those that run unasked."""
    from bench import (
        audit,
        builds,
        catalogue,
        devel,
        guard,
        kernels,
        levels,
        packages,
        plan,
        preflight,
        pull,
        remote_audit,
        rendering,
        sizes,
        slim,
    )
    from bench import start as starts

    modules = (
        plan,
        rendering,
        catalogue,
        audit,
        slim,
        sizes,
        pull,
        remote_audit,
        packages,
        devel,
        kernels,
        builds,
        levels,
        starts,
        preflight,
        guard,
    )
    if not frame.BENCHES:
        from bench import guard_cost, oracle, server

        for module in (*modules, server, guard_cost, oracle):
            module.register(checkout)
    return {name: frame.HEAVY.get(name, "") for name in frame.BENCHES}


def bench(checkout: Checkout, names: Sequence[str], *, record: bool = False, everything: bool = False) -> None:
    """Run the named benches, or those that take seconds, or all; print the table; with ``record`` keep the run.

    Without a name the table also has the kept rows of what did not run now. What is kept is in BENCH.md and in
    docs/benchmarks.md at once.
    """
    takes = register_all(checkout)
    report = Report()
    unasked = {name: frame.BENCHES[name] for name in takes if everything or not takes[name]}
    around = partial(run_conditions, checkout)
    records = frame.run_benches(names, report, checkout.root / RESULTS, around, None if names else unasked)
    shown = records if names else [*records, *_kept_records(checkout, records)]
    report.table([cells for one in shown for cells in _record_rows(one, one in records)], frame.HEADER)
    if record:
        for one in worth_keeping(records, checkout.root / FOLDER):
            report.line(f"kept: {write_record(checkout.root / FOLDER, one).relative_to(checkout.root)}")
        for path in checkout.write_pages(pages(checkout, checkout.texts([document.MEASUREMENTS.page]))):
            report.line(f"written: {path}")
        report.next_command("git diff BENCH.md", "the figures before and now; the record is committed with it")


def worth_keeping(records: Sequence[BenchRecord], folder: Path) -> list[BenchRecord]:
    """Those that measured something, or that no run is kept of: what did not run here drops no good run from before."""
    return [
        one
        for one in records
        if any(row.ours is not None for row in one.rows) or not (folder / f"{one.bench}.json").is_file()
    ]


def pages(checkout: Checkout, others: Mapping[str, str]) -> dict[str, str]:
    """``others`` (path -> text of pages with a generated part), with BENCH.md, docs/benchmarks.md and its plots.

    Raises UsageError for a broken record.
    """
    takes = register_all(checkout)
    kept, on_cards = read_records(checkout.root / FOLDER), read_gpu_records(checkout.root / GPU_RECORDS)
    written = filled(others, kept, on_cards, takes, read_improvements(checkout.root / IMPROVEMENTS))
    return plots.with_plots(written, kept, on_cards, plots.read_peers(checkout.root / plots.PEERS))


def _kept_records(checkout: Checkout, records: Sequence[BenchRecord]) -> list[BenchRecord]:
    ran = {one.bench for one in records}
    return [one for one in read_records(checkout.root / FOLDER) if one.bench not in ran]


def _record_rows(record: BenchRecord, now: bool) -> list[list[str]]:
    around = record.conditions
    where = "here, now" if now else f"{around.machine.cores} cores, {around.date[:10]}"
    return [frame.cells(row, where + (", busy" if around.was_busy else "")) for row in record.rows]
