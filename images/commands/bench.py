"""`invoke bench`: the measurements."""

from __future__ import annotations

from dataclasses import dataclass

from images.commands.options import command
from images.context import Context
from images.core import UsageError
from images.core.options import option


@dataclass(frozen=True)
class BenchOptions:
    """Which measurements."""

    name: str = option("one measurement; without it those that take seconds", "")
    all: bool = option("also those that take minutes, compilers or built images", False)
    by: str = option("with `sizes`: package, for what each distribution of a built image weighs", "")
    record: bool = option("keep the run in records/bench, which BENCH.md is written from", False)


@command("bench plan")
def bench(context: Context, options: BenchOptions) -> None:
    """The measurements, as one table with what was kept of those that did not run now."""
    from bench import bench as run_benches

    if options.by and (options.name, options.by) != ("sizes", "package"):
        raise UsageError(f"--by {options.by} goes with no measurement", do="./inv bench sizes --by package")
    names = ["packages" if options.by else options.name] if options.name else []
    run_benches(context.checkout, names, record=options.record, everything=options.all)
