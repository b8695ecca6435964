"""Rows of what ran on a card: figures of its record, what is slimmed against what is untouched. Pure."""

from __future__ import annotations

from images.bench.record import Row
from images.gpu_records import Figure, GpuRecord

# How a figure's circumstances are told; other values speak for themselves.
_TOLD = {"batch": "batch {}", "prompt": "{} tokens of prompt", "caches": "{} caches"}
# What the README shows: what a user of the recommended image waits for.
_HEADLINES = ("decode", "start to first token")


def rows_of(record: GpuRecord) -> list[Row]:
    """One row a figure, then what did not run, with its reason; nothing of a record without figures.

    The untouched package's figure is the peer of the slimmed one's and has no row of its own.
    """
    if not record.figures:
        return []
    rows = []
    for figure in record.figures:
        peer = _peer(record, figure)
        if peer is None and _is_peer(record, figure):
            continue
        told = ", ".join(_TOLD.get(key, "{}").format(value) for key, value in figure.of.items())
        measures = f"{figure.name}: {told}" if told else figure.name
        measures += f"; runs: {len(figure.runs)}" if figure.runs else ""
        image = f"{record.variant}@{record.input_hash[:12]}" if record.variant else ""
        against = "untouched" if peer else ""
        shown = figure.name in _HEADLINES and peer is not None
        ours, other = figure.value, peer.value if peer else None
        rows.append(Row("gpu", measures, ours, other, figure.unit, against, image=image, headline=shown))
    missed = [step for step in record.steps if step.verdict == "not run"]
    return rows + [Row("gpu", step.name, None, None, "", why=step.reason or "not told") for step in missed]


def _peer(record: GpuRecord, figure: Figure) -> Figure | None:
    """The same figure of the untouched package."""
    if figure.of.get("content") != "slimmed":
        return None
    wanted = {**figure.of, "content": "untouched"}
    return next((one for one in record.figures if one.name == figure.name and dict(one.of) == wanted), None)


def _is_peer(record: GpuRecord, figure: Figure) -> bool:
    """Whether another row shows this figure as its peer."""
    if figure.of.get("content") != "untouched":
        return False
    wanted = {**figure.of, "content": "slimmed"}
    return any(one.name == figure.name and dict(one.of) == wanted for one in record.figures)
