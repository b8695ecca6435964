"""What users of images should know of them, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from images.matrix.model import Note
from images.matrix.variants import Variant


def note_lines(variants: Iterable[Variant]) -> list[str]:
    """Each note of these images once, its source, and the images that it speaks of."""
    images: dict[str, tuple[Note, list[str]]] = {}
    for variant in variants:
        for note in variant.notes:
            images.setdefault(note.id, (note, []))[1].append(variant.id)
    out: list[str] = []
    for note, names in images.values():
        out.append(f"note on {', '.join(names)}\n  {note.text}\n  source: [{note.mark}] {note.source}")
    return out
