"""Every card and its image: as rows for people, as JSON for scripts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from images.arch import Arch
from images.cards.choose import Choice, choose, unfit
from images.cards.data import Card
from images.errors import CardstockError
from images.matrix import Matrix
from images.variants import Variant, Variants


@dataclass(frozen=True)
class Row:
    """A card with the image it should have, or the error that says why it has none."""

    card: Card
    image: Variant | None
    why: CardstockError | None = None


def rows(matrix: Matrix, variants: Variants, cards: Sequence[Card]) -> list[Row]:
    """One row for each card, for any driver that is new enough for its image."""
    known: dict[Arch, Choice] = {}
    found = []
    for card in cards:
        if reason := unfit(card):
            found.append(Row(card, None, reason))
            continue
        if card.arch not in known:
            known[card.arch] = choose(matrix, variants, [card])
        choice = known[card.arch]
        if choice.picks:
            found.append(Row(card, choice.picks[0].variant))
        else:
            found.append(Row(card, None, choice.refusals[0].why))
    return found


def cells(row: Row) -> list[str]:
    """Name, compute capability, GB, image and the driver it needs, or the reason and what to do instead."""
    reason = f"{row.why.cause}; {row.why.do}" if row.why else ""
    image, driver = (row.image.id, row.image.min_driver or "") if row.image else ("-", "")
    return [row.card.name, str(row.card.arch), f"{row.card.memory:g}", image, driver, reason]


HEADER = ["card", "capability", "GB", "image", "driver from", "why none"]


def row_json(row: Row) -> dict[str, Any]:
    """A row for scripts."""
    return {
        "card": row.card.name,
        "arch": row.card.arch.capability,
        "memory_gb": row.card.memory,
        "source": row.card.source,
        "image": row.image.id if row.image else None,
        "min_driver": row.image.min_driver if row.image else None,
        **_error_json(row.why),
    }


def choice_json(choice: Choice) -> dict[str, Any]:
    """What a machine's cards should have, for scripts."""
    return {
        "one_for_all": choice.one_for_all,
        "images": [
            {
                "image": pick.variant.id,
                "min_driver": pick.variant.min_driver,
                "cards": [card.name for card in pick.cards],
                "notes": list(pick.notes),
            }
            for pick in choice.picks
        ],
        "refused": [{"card": refusal.card.name, **_error_json(refusal.why)} for refusal in choice.refusals],
    }


def choice_lines(choice: Choice) -> list[str]:
    """What a machine's cards should have, for people: one fact a line."""
    told = []
    if len({card.arch for pick in choice.picks for card in pick.cards}) > 1:
        told.append("one image covers them all" if len(choice.picks) == 1 else "no image covers them all: one each")
    for pick in choice.picks:
        names = ", ".join(dict.fromkeys(card.name for card in pick.cards))
        told.append(f"{names}: {pick.variant.id}, driver from {pick.variant.min_driver}")
        told += [f"  note: {note}" for note in pick.notes]
    for refusal in choice.refusals:
        told += [f"{refusal.card.name}: no image", *(f"  {line}" for line in str(refusal.why).splitlines())]
    return told


def _error_json(why: CardstockError | None) -> dict[str, Any]:
    return {"what": why.what, "cause": why.cause, "do": why.do} if why else {}
