"""Every card and its image: as rows for people, as JSON for scripts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from images.cards import Card, ImageChoice, choose_images, why_no_image
from images.catalogue.acted import acted_cell
from images.catalogue.evidence import NOTHING, Seen, image_evidence, records_evidence
from images.catalogue.model import Catalogue, PublishedImage
from images.catalogue.resolve import images_for_older_drivers, match_images
from images.core import CardstockError, NoImageFits, human_bytes
from images.matrix import Arch, Matrix, Selectors, Variant, Variants, for_older_drivers
from images.proof.on_card.records import GpuRecord


@dataclass(frozen=True)
class CardRow:
    """A card with the image it should have, or the error that says why it has none.

    ``published`` is the image that a catalogue has for it; ``evidence`` says on what it was seen to run. ``older`` are
    the rows of the images that the same card gets with drivers that are too old for this one, the next ones first.
    """

    card: Card
    image: Variant | None
    why: CardstockError | None = None
    published: PublishedImage | None = None
    evidence: Seen = NOTHING
    older: tuple[CardRow, ...] = ()


def one_by_one(rows: Iterable[CardRow]) -> Iterator[CardRow]:
    """Every row, and behind it those of the same card's images for older drivers."""
    for row in rows:
        yield from (row, *row.older)


def card_rows(matrix: Matrix, variants: Variants, cards: Sequence[Card]) -> list[CardRow]:
    """One row for each card, for any driver that is new enough for its image; ``older`` has what older ones get."""
    known: dict[Arch, ImageChoice] = {}
    below: dict[Arch, list[Variant]] = {}
    table = []
    for card in cards:
        if reason := why_no_image(card):
            table.append(CardRow(card, None, reason))
            continue
        if card.arch not in known:
            known[card.arch] = choose_images(matrix, variants, [card])
        choice = known[card.arch]
        if choice.picks:
            first = choice.picks[0].variant
            if card.arch not in below:
                below[card.arch] = for_older_drivers(matrix, variants, Selectors(archs=((card.arch,),)), first)
            table.append(CardRow(card, first, older=tuple(CardRow(card, one) for one in below[card.arch])))
        else:
            table.append(CardRow(card, None, choice.refusals[0].why))
    return table


def published_rows(
    matrix: Matrix,
    variants: Variants,
    cards: Sequence[Card],
    catalogue: Catalogue,
    records: Sequence[GpuRecord] = (),
) -> list[CardRow]:
    """As `card_rows`, of what a catalogue has: where its recommended image is not published, the best one that is.

    ``records`` are runs on cards, of which those of the published images themselves count.
    """
    known: dict[Arch, CardRow] = {}
    table = []
    for card in cards:
        if reason := why_no_image(card):
            table.append(CardRow(card, None, reason))
            continue
        if card.arch not in known:
            known[card.arch] = _published_row(matrix, variants, card, catalogue, records)
        row = known[card.arch]
        row = replace(row, card=card, older=tuple(replace(one, card=card) for one in row.older))
        if row.why is not None:  # it names the first card of this capability
            row = replace(row, why=NoImageFits(f"no image for {card.name}", cause=row.why.cause, do=row.why.do))
        table.append(row)
    return table


def _published_row(
    matrix: Matrix, variants: Variants, card: Card, catalogue: Catalogue, records: Sequence[GpuRecord]
) -> CardRow:
    answer = match_images(catalogue, matrix, variants, [card])
    if not answer.matches:
        return CardRow(card, None, answer.refusals[0].why)
    image = answer.matches[0].image
    below = images_for_older_drivers(catalogue, matrix, variants, card, image)
    first, *older = (
        CardRow(card, variants.valid[one.variant], None, one, image_evidence(one, records)) for one in (image, *below)
    )
    return replace(first, older=tuple(older))


def with_records(rows: Iterable[CardRow], records: Sequence[GpuRecord], today: Mapping[str, str]) -> list[CardRow]:
    """Rows of what is not published, with what records of runs on cards say of their images.

    ``today`` has the hash of today's inputs by variant, at least for those that records name.
    """
    return [
        replace(
            row,
            evidence=records_evidence(records, row.image.id, today) if row.image else NOTHING,
            older=tuple(with_records(row.older, records, today)),
        )
        for row in rows
    ]


def card_cells(row: CardRow) -> list[str]:
    """Name, compute capability, GB, image and the driver it needs, or the reason and what to do instead."""
    reason = f"{row.why.cause}; {row.why.do}" if row.why else ""
    image, driver = (row.image.id, row.image.min_driver or "") if row.image else ("-", "")
    return [row.card.name, str(row.card.arch), f"{row.card.memory:g}", image, driver, reason]


CARD_HEADER = ["card", "capability", "GB", "image", "driver from", "why none"]


def cells_with_evidence(row: CardRow) -> list[str]:
    """As `card_cells`, with the evidence before the reason."""
    *first, reason = card_cells(row)
    return [*first, str(row.evidence), reason]


EVIDENCE_HEADER = [*CARD_HEADER[:-1], "evidence", CARD_HEADER[-1]]
IMAGES_HEADER = ["image", "digest", "to pull", "on disk", "audited for", "driver from", "cards", "evidence"]


def image_cells(rows: Sequence[CardRow]) -> list[list[str]]:
    """The published images that cards should have, a row each, by id."""
    cards: dict[str, list[CardRow]] = {}
    for row in one_by_one(rows):
        if row.published:
            cards.setdefault(row.published.variant, []).append(row)
    return [
        [
            *(image.variant, image.digest, human_bytes(image.compressed), human_bytes(image.unpacked)),
            *(" ".join(image.audited), image.min_driver or "", str(len(same)), str(same[0].evidence)),
        ]
        for _, same in sorted(cards.items())
        if (image := same[0].published)
    ]


def row_json(
    row: CardRow, records: Sequence[GpuRecord] = (), today: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """A row for scripts; ``older_drivers`` are the images for drivers that are too old for ``image``.

    ``acted`` is what ``records`` say of the image on a card that was acted: "acted as 7.5 on NVIDIA H200, 2026-11-28";
    ``today`` has the hash of today's inputs by variant.
    """
    return {
        "card": row.card.name,
        "arch": row.card.arch.capability,
        "memory_gb": row.card.memory,
        "source": row.card.source,
        **_row_json(row, records, today),
        "older_drivers": [_row_json(one, records, today) for one in row.older],
        **_error_json(row.why),
    }


def _row_json(row: CardRow, records: Sequence[GpuRecord], today: Mapping[str, str]) -> dict[str, Any]:
    return {
        "image": row.image.id if row.image else None,
        "min_driver": row.image.min_driver if row.image else None,
        "acted": (acted_cell(records, row.image.id, today, links=False) if row.image else "") or None,
        **_seen_json(row.evidence),
        "published": _image_json(row.published) if row.published else None,
    }


def _seen_json(seen: Seen) -> dict[str, Any]:
    """Words, day and record, each None where there is none."""
    return {"evidence": seen.words or None, "evidence_day": seen.day or None, "evidence_record": seen.record or None}


def _image_json(image: PublishedImage) -> dict[str, Any]:
    proofs = [proof.model_dump() for proof in image.evidence]
    fields = image.model_dump(include={"digest", "tag", "compressed", "unpacked", "audited", "min_driver", "published"})
    return {**fields, "evidence": proofs}


def choice_json(choice: ImageChoice, seen: Mapping[str, Seen] | None = None) -> dict[str, Any]:
    """What a machine's cards should have, for scripts; ``seen`` is the evidence of each image."""
    return {
        "one_for_all": choice.one_for_all,
        "images": [
            {
                "image": pick.variant.id,
                "min_driver": pick.variant.min_driver,
                "cards": [card.name for card in pick.cards],
                **(_seen_json(seen[pick.variant.id]) if seen else {}),
                "notes": list(pick.notes),
            }
            for pick in choice.picks
        ],
        "refused": [{"card": refusal.card.name, **_error_json(refusal.why)} for refusal in choice.refusals],
    }


def choice_lines(choice: ImageChoice, seen: Mapping[str, Seen] | None = None) -> list[str]:
    """What a machine's cards should have, for people: one fact a line; ``seen`` is the evidence of each image."""
    lines = []
    if len({card.arch for pick in choice.picks for card in pick.cards}) > 1:
        lines.append("one image covers them all" if len(choice.picks) == 1 else "no image covers them all: one each")
    for pick in choice.picks:
        names = ", ".join(dict.fromkeys(card.name for card in pick.cards))
        lines.append(f"{names}: {pick.variant.id}, driver from {pick.variant.min_driver}")
        lines += [f"  evidence: {seen[pick.variant.id]}"] if seen else []
        lines += [f"  note: {note}" for note in pick.notes]
    for refusal in choice.refusals:
        lines += [f"{refusal.card.name}: no image", *(f"  {line}" for line in str(refusal.why).splitlines())]
    return lines


def _error_json(why: CardstockError | None) -> dict[str, Any]:
    return {"what": why.what, "cause": why.cause, "do": why.do} if why else {}
