"""The README's table of images: what is published, by catalogue.json; without that file, what the matrix recommends.

A catalogue is no part of the sources until a maintainer commits it: CI's last job reads the one that a publication
wrote, renders this table from it, and pushes both to a branch of their own (.github/workflows/publish.yml).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.cards import Card, all_cards
from images.catalogue.acted import with_acted
from images.catalogue.card_table import CardRow, card_rows, one_by_one, published_rows, with_records
from images.catalogue.evidence import Seen, image_evidence
from images.catalogue.model import Catalogue, read_catalogue
from images.core import human_bytes, read_file
from images.matrix import Arch, Matrix, Variants
from images.proof.on_card.records import GpuRecord, read_gpu_records
from images.render import document

CATALOGUE = "catalogue.json"
# What people call the cards of a compute capability; all names are in `./inv cards`.
FAMILIES = {
    "6.0": "P100, GP100",
    "6.1": "P40, P4, GTX 10xx, Titan X (Pascal), Titan Xp",
    "7.0": "V100, Titan V",
    "7.5": "T4, RTX 20xx, Titan RTX, GTX 16xx",
    "8.0": "A100, A30",
    "8.6": "RTX 30xx, A10, A40, RTX A6000",
    "8.9": "RTX 40xx, L4, L40S",
    "9.0": "H100, H200, H20",
    "10.0": "B200",
    "10.3": "B300",
    "12.0": "RTX 50xx, RTX PRO Blackwell",
}

_HOW_FAR = "how far it is proven"
_RECOMMENDED = """\
These are the images that `matrix.yaml` recommends. None of them gets a name before it has passed the audit and the
canary on a CPU; the last column says what was seen beyond that, with a link to the record of the run and its day.
What ran is the image that these sources make, unless "an earlier build" stands behind it."""
_BY_DRIVER = """\
Where a card has several rows, it gets the first whose driver the machine has
([Your driver decides](docs/which-image.md#your-driver-decides))."""
_PUBLISHED = """\
These are the images that are published, as of {updated} (`catalogue.json`). Where a proof ran on a card, the last
column names the card, its driver and the day."""


@dataclass(frozen=True)
class ImageGroup:
    """The compute capabilities whose cards get the same image, and one of their rows."""

    archs: tuple[Arch, ...]
    row: CardRow


def group_by_image(table: Iterable[CardRow]) -> list[ImageGroup]:
    """Rows of cards with an image, by that image, the oldest cards first, and of theirs the newest drivers."""
    archs: dict[str, set[Arch]] = {}
    first: dict[str, CardRow] = {}
    for row in one_by_one(table):
        if row.image:
            archs.setdefault(row.image.id, set()).add(row.card.arch)
            first.setdefault(row.image.id, row)
    grouped = [ImageGroup(tuple(sorted(archs[name])), row) for name, row in first.items()]
    return sorted(grouped, key=lambda group: group.archs)


def table_text(
    matrix: Matrix,
    variants: Variants,
    records: Sequence[GpuRecord],
    catalogue: Catalogue | None,
    today: Mapping[str, str],
) -> str:
    """What stands between the marks: a row for each image, what its user should know, where all this is from.

    ``today`` has the hash of today's inputs by variant, at least for those that records name.
    """
    if catalogue:
        table = published_rows(matrix, variants, all_cards(), catalogue, records)
        caption = _PUBLISHED.format(updated=catalogue.updated[:10])
    else:
        table, caption = with_records(card_rows(matrix, variants, all_cards()), records, today), _RECOMMENDED
    header = ["`--arch`", "cards", "image", "driver from", *(["to pull"] if catalogue else []), _HOW_FAR]
    grouped = [*group_by_image(table), *_without_card(variants, catalogue)]
    plain = [header, ["---"] * len(header), *(_cells(group) for group in grouped)]
    lines = with_acted(plain, [group.row.image for group in grouped], records, today, links=True)
    notes: dict[str, list[str]] = {}
    for group in grouped:
        for note in group.row.image.notes if group.row.image else ():
            notes.setdefault(note.text, []).extend(arch.capability for arch in group.archs)
    if len({arch for group in grouped for arch in group.archs}) < sum(len(group.archs) for group in grouped):
        caption = f"{_BY_DRIVER}\n\n{caption}"
    note_lines = [f"- {', '.join(dict.fromkeys(archs))}: {text}." for text, archs in notes.items()]
    return "\n".join(
        [*(f"| {' | '.join(line)} |" for line in lines), "", *note_lines, *([""] if note_lines else []), caption]
    )


_NONE = Card("no card", Arch(0, 0), 0, "")
_CPU = Seen("CPU canary, CPU server")


def _without_card(variants: Variants, catalogue: Catalogue | None) -> Iterator[ImageGroup]:
    """The images for the CPU."""
    for variant in variants.valid.values():
        if variant.archs:
            continue
        if catalogue is None:
            yield ImageGroup((), CardRow(_NONE, variant, None, None, _CPU))
        elif published := catalogue.current.get(variant.id):
            yield ImageGroup((), CardRow(_NONE, variant, None, published, image_evidence(published)))


def _cells(group: ImageGroup) -> list[str]:
    archs = [arch.capability for arch in group.archs]
    image, published = group.row.image, group.row.published
    return [
        ", ".join(archs) or "-",
        ", ".join(FAMILIES.get(arch, "") for arch in archs) or group.row.card.name,
        f"`{image.id}`" if image else "-",
        (image.min_driver if image else None) or "-",
        *([human_bytes(published.compressed)] if published else []),
        group.row.evidence.markdown(),
    ]


def with_images_table(
    root: Path, matrix: Matrix, variants: Variants, before: Mapping[str, str], today: Mapping[str, str]
) -> dict[str, str]:
    """``before`` (pages by path from the root) with this table in the README; ``today`` as for `table_text`.

    Raises Unsafe for a catalogue.json that is none.
    """
    file = root / CATALOGUE
    catalogue = read_catalogue(read_file(file), CATALOGUE) if file.is_file() else None
    new = table_text(matrix, variants, read_gpu_records(), catalogue, today)
    return document.IMAGES.fill_in(before, new)
