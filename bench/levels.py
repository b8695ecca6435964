"""`invoke bench smoke`: what proving an image takes, level by level.

By default the image for the CPU, three times; $CARDSTOCK_BENCH_ONLY names others by a glob on variant ids,
$CARDSTOCK_BENCH_RUNS says how often.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from bench.frame import bench
from bench.record import Row
from bench.stages import ONLY, Workbench, workbench
from images.core import CheckFailed, NothingSelected
from images.matrix import Variant
from images.proof.smoke import LEVELS, LevelName, LevelResult, ProofRecord, expect, prove_image
from images.render import Checkout

REPEATS = 3
# Another number of runs, where three are too many.
RUNS = "CARDSTOCK_BENCH_RUNS"


def chosen_variants(tools: Workbench) -> list[Variant]:
    """The built variants to measure. Raises NothingSelected where there is none."""
    chosen = [variant for variant in tools.built() if ONLY in os.environ or variant.cuda is None]
    if not chosen:
        raise NothingSelected("this measures built images, and there is none", do="./inv build --only 'cpu*'")
    return chosen


def run_count() -> int:
    """How often an image is measured."""
    return int(os.environ.get(RUNS) or REPEATS)


def prove_repeatedly(tools: Workbench, variant: Variant, levels: Sequence[int]) -> list[ProofRecord]:
    """Records of an image's levels, one a repeat. Raises CheckFailed where a level fails."""
    records = []
    for _ in range(run_count()):
        record = prove_image(
            tools.image_name(variant), expect(variant), engine_env=tools.engine.client_env(), levels=levels
        )
        if not record.ok:
            raise CheckFailed(f"{variant.id} is not proven, so it is not measured: {record.evidence()}")
        records.append(record)
    return records


def rows_of_levels(variant: str, image: str, records: Sequence[ProofRecord]) -> Iterator[Row]:
    """A row for each level: the median of its seconds, or why it did not run."""
    for name, number in LEVELS.items():
        levels = [_level(record, name) for record in records]
        measures = f"{variant}: level {number}, {name}; runs: {len(records)}"
        if short := [level for level in levels if level.status != "passed"]:
            yield Row("smoke", measures, None, None, "s", why=short[0].reason or short[0].status, image=image)
        else:
            yield Row("smoke", measures, median(level.seconds for level in levels), None, "s", image=image)
    whole = median(sum(level.seconds for level in record.levels) for record in records)
    yield Row("smoke", f"{variant}: all levels; runs: {len(records)}", whole, None, "s", image=image)


def _level(record: ProofRecord, name: LevelName) -> LevelResult:
    missing = LevelResult(LEVELS[name], name, "not run", "not asked for")
    return next((level for level in record.levels if level.name == name), missing)


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("smoke", heavy="the built image for the CPU, ten minutes")
    def levels() -> Iterable[Row]:
        tools = workbench(checkout)
        for variant in chosen_variants(tools):
            yield from rows_of_levels(
                variant.id, tools.image_label(variant), prove_repeatedly(tools, variant, (1, 2, 3, 4))
            )
