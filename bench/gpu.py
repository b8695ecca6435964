"""Rows of what ran on a card: figures of its record, what is slimmed or new against what is not. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bench.record import Row
from images.proof.on_card.records import FORKED, SPAWNED, Figure, GpuRecord

# How a row writes the conditions of a figure; other values are written as they are.
_CONDITION_FORMATS = {"batch": "batch {}", "prompt": "{} tokens of prompt", "caches": "{} caches"}
# In what a figure may differ from its peer: what it is of, this project's, the peer's.
_PEERS = (
    ("content", "slimmed", "untouched"),
    ("content", "light", "untouched"),
    ("start", FORKED, SPAWNED),
)
# What docs/benchmarks.md shows: what a user of the recommended image waits for.
_HEADLINES = ("decode", "prefill in the engine", "start to first token")


def rows_of(record: GpuRecord) -> list[Row]:
    """One row a figure, then what did not run, with its reason; nothing of a record without figures.

    A peer's figure, such as that of the untouched package, has no row of its own. Of a start without bytecode only
    the sum is told: no image is without.
    """
    if not record.figures:
        return []
    rows = []
    for figure in record.figures:
        peer, against = _peer(record, figure)
        without = figure.of.get("bytecode") == "bytecode made"
        if (without and figure.name.startswith("start: ")) or (peer is None and _is_peer(record, figure)):
            continue
        conditions = ", ".join(_CONDITION_FORMATS.get(key, "{}").format(value) for key, value in figure.of.items())
        measures = f"{figure.name}: {conditions}" if conditions else figure.name
        measures += f"; runs: {len(figure.runs)}" if figure.runs else ""
        image = f"{record.variant}@{record.input_hash[:12]}" if record.variant else ""
        shown = figure.name in _HEADLINES and peer is not None and not without
        ours, other = figure.value, peer.value if peer else None
        rows.append(Row("gpu", measures, ours, other, figure.unit, against, image=image, headline=shown))
    missed = [step for step in record.steps if step.verdict == "not run"]
    return rows + [Row("gpu", step.name, None, None, "", why=step.reason or "not told") for step in missed]


def _peer(record: GpuRecord, figure: Figure) -> tuple[Figure | None, str]:
    """The same figure of what this one is against, and in what they differ; None and "" without one."""
    for key, ours, theirs in _PEERS:
        if figure.of.get(key) == ours and (peer := _same(record, figure, {**figure.of, key: theirs})):
            return peer, theirs
    return None, ""


def _is_peer(record: GpuRecord, figure: Figure) -> bool:
    """Whether another row shows this figure as its peer."""
    own = ((key, ours) for key, ours, theirs in _PEERS if figure.of.get(key) == theirs)
    return any(_same(record, figure, {**figure.of, key: ours}) for key, ours in own)


def _same(record: GpuRecord, figure: Figure, of: Mapping[str, str]) -> Figure | None:
    """The figure of this one's name that is of something else."""
    return next((one for one in record.figures if one.name == figure.name and dict(one.of) == dict(of)), None)
