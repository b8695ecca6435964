"""On what cards an image was acted, as a column of its own in tables of images. Pure.

It stands before what was seen on real cards and is never mixed with that: no run on the card that is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from images.catalogue.evidence import EARLIER, is_of_today
from images.matrix import Variant
from images.proof.on_card.records import ActedRun, GpuRecord, acted_runs

HEADER = "acted as"


def acted_words(run: ActedRun) -> str:
    """ "acted as 7.5 on NVIDIA H200", or what failed there."""
    where = f"acted as {run.acted.capability} on {run.record.card}"
    if run.failed:
        return f"{where}: {', '.join(run.failed)} failed"
    return where if run.answered else f"{where}: no answer was seen"


def acted_cell(records: Iterable[GpuRecord], variant: str, today: Mapping[str, str], *, links: bool) -> str:
    """Each thing that records say of an image once, the newest day; "" where none acts for it.

    A failure hides what passed by the same record, an answer a run that has seen none. ``today`` has the hash of the
    inputs that each variant is made of today: where the image that ran was made of others, "an earlier build" stands
    behind, and such a record is asked only where none speaks of today's. ``links``: each leads to its record.
    """
    found = sorted(acted_runs(records, variant), key=lambda run: run.record.created)
    current = [run for run in found if is_of_today(run.record, today)]
    noted = "" if current else f" ({EARLIER})"
    latest = {acted_words(run): run for run in _by_record(current or found)}
    answered = {(run.acted.capability, run.record.card) for run in latest.values() if run.answered and not run.failed}
    told = []
    for words, run in latest.items():
        if not run.failed and not run.answered and (run.acted.capability, run.record.card) in answered:
            continue
        words += noted
        linked = f"[{words}](records/cards/{run.record.name}.json)" if links and run.record.name else words
        told.append(f"{linked}, {run.record.created[:10]}")
    return "; ".join(told)


def _by_record(runs: Iterable[ActedRun]) -> Iterable[ActedRun]:
    """The cards of one capability that a record has acted as one run: a failure of any is one of the image."""
    joined: dict[tuple[str, str, str], ActedRun] = {}
    for run in runs:
        key = run.record.name, run.record.created, run.acted.capability
        joined[key] = replace(run, steps=(*joined[key].steps, *run.steps)) if key in joined else run
    return joined.values()


def with_acted(
    lines: Sequence[Sequence[str]],
    images: Sequence[Variant | None],
    records: Sequence[GpuRecord],
    today: Mapping[str, str],
    *,
    links: bool = False,
    behind: int = 1,
) -> list[list[str]]:
    """A table with the column, before the last ``behind`` ones; as it was where no record acts for any of ``images``.

    ``lines`` are the header, in Markdown (``links``) the line below it, and a line for each image; ``today`` as for
    `acted_cell`.
    """
    cells = [acted_cell(records, image.id, today, links=links) if image else "" for image in images]
    if not any(cells):
        return [list(line) for line in lines]
    heads = [HEADER, "---"] if links else [HEADER]
    column = [*heads, *(cell or "-" for cell in cells)]
    return [
        [*line[: len(line) - behind], cell, *line[len(line) - behind :]]
        for line, cell in zip(lines, column, strict=True)
    ]
