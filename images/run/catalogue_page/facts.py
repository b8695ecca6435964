"""What the page says of an image: driver, size, on what it was seen to run, known holes, the lines to type. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from images.catalogue import (
    Catalogue,
    ImageAdvisories,
    PublishedImage,
    Seen,
    acted_cell,
    image_evidence,
    records_evidence,
    reference_of,
)
from images.core import SOURCE, human_bytes
from images.docker import docker_line
from images.matrix import Matrix, Variant, budget_of
from images.proof.on_card.records import GpuRecord
from images.run.serve import spec_without_model

_RECORDS = f"{SOURCE}/blob/main/"
_CPU = Seen("CPU canary, CPU server")
NO_ADVISORIES = "not known: it was published before there was a list"


@dataclass(frozen=True)
class Known:
    """What is known of images: ``records`` of runs on cards, ``today`` the hash of today's inputs by variant,
    ``advisories`` what holes an image has, ``repository`` where images are ("": not said).
    """

    matrix: Matrix
    records: Sequence[GpuRecord]
    today: Mapping[str, str]
    advisories: Callable[[Variant], ImageAdvisories]
    repository: str = ""


def image_facts(variant: Variant, catalogue: Catalogue | None, known: Known) -> dict[str, Any]:
    """Of an image, published or recommended, as the page has it."""
    published = catalogue.current[variant.id] if catalogue else None
    seen = _seen(variant, published, known)
    holes = published.advisories if published else known.advisories(variant)
    return {
        "driver": (published.min_driver if published else variant.min_driver) or "",
        "size": _size(variant, published, known.matrix),
        "evidence": seen.words,
        "day": seen.day,
        "record": f"{_RECORDS}{seen.record}" if seen.record else "",
        "acted": acted_cell(known.records, variant.id, known.today, links=False),
        "advisories": holes.summary() if holes else NO_ADVISORIES,
        "notes": [note.text for note in variant.notes],
        "digest": published.digest if published else "",
        "lines": _lines(variant, published, known),
    }


def _seen(variant: Variant, published: PublishedImage | None, known: Known) -> Seen:
    if published:
        return image_evidence(published, known.records)
    return records_evidence(known.records, variant.id, known.today) if variant.archs else _CPU


def _size(variant: Variant, published: PublishedImage | None, matrix: Matrix) -> str:
    if published:
        return f"{human_bytes(published.compressed)} to pull, {human_bytes(published.unpacked)} on disk"
    budget = budget_of(matrix, variant.id)
    if budget is None:
        return "not measured"
    zstd, unpacked = human_bytes(budget.zstd * 10**6), human_bytes(budget.unpacked * 10**6)
    return f"at most {zstd} to pull and {unpacked} on disk (its budget)"


def _lines(variant: Variant, published: PublishedImage | None, known: Known) -> list[str]:
    """What is typed: as `pull` prints it for a published image; else what builds it, and then runs it."""
    if published:
        return [_run(variant, reference_of(known.repository or "REPO", published))]
    return [shlex.join(["./inv", "build", "--only", variant.id]), _run(variant, f"{known.matrix.image}:{variant.id}")]


def _run(variant: Variant, image: str) -> str:
    return docker_line(spec_without_model(image, cards=bool(variant.archs)), foreground=True)
