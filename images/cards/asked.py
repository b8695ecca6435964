"""Which cards were meant: those that were named, or those of this machine. One reading for every command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from images.cards.choose import why_no_image
from images.cards.data import Card, all_cards
from images.cards.names import NameMatch, match_card
from images.cards.this_machine import LocalMachine, card_called, read_machine
from images.core import NoImageFits, Report, UsageError
from images.matrix import Driver, parse_driver


@dataclass(frozen=True)
class AskedCards:
    """The cards, and their driver, None if it is not known. ``machine`` is the one they are in, if it is this one."""

    cards: tuple[Card, ...]
    driver: Driver | None
    machine: LocalMachine | None = None


def named_cards(texts: Sequence[str], report: Report | None = None) -> tuple[Card, ...]:
    """The cards that names stand for, in their order; "T4, RTX 4090" are two. What each name is taken for is told.

    Raises UsageError for a name that is no card's or several cards'.
    """
    cards = []
    for name in (part.strip() for text in texts for part in text.split(",")):
        match = _match(name)
        if report is not None:
            sizes = " or ".join(f"{size:g}" for size in match.memories)
            report.line(f"{name}: {match.card.name}, compute capability {match.card.arch}, {sizes} GB")
        cards.append(match.card)
    return tuple(cards)


def _match(name: str) -> NameMatch:
    """The card of this name; of one that no list has, the card of this machine that NVML calls so."""
    try:
        return match_card(name, all_cards())
    except UsageError as unknown:
        if own := card_called(name, read_machine()):
            return NameMatch(own)
        raise unknown


def asked_cards(
    names: Sequence[str],
    driver: str,
    report: Report | None = None,
    *,
    purpose: str,
    do: str,
    machine: LocalMachine | None = None,
) -> AskedCards:
    """The named cards, or without names this machine's; ``machine`` stands in for this one.

    A ``driver`` that is said counts more than the machine's. Raises UsageError for a name or a driver that cannot be
    read, NoImageFits (with ``purpose``, such as "to find an image for", and ``do``) where this machine has no card.
    """
    said = parse_driver(driver) if driver else None
    if names:
        return AskedCards(named_cards(names, report), said)
    here = machine or read_machine()
    if not here.cards:
        mend = f"{here.do}; or {do}" if here.do else do
        raise NoImageFits(f"this machine has no NVIDIA card {purpose}", cause=here.why, do=mend)
    if report is not None:
        for lost in here.lost:
            report.line(f"{lost}; the other cards are used", "yellow")
    return AskedCards(here.as_cards(), said or here.known_driver, here)


def archs_of(texts: Sequence[str], report: Report) -> list[str]:
    """The arch lists that named cards stand for, one for each text; "T4, RTX 4090" is one image for both.

    Raises UsageError for a name that is no card's or several cards', NoImageFits for a card that no image can serve.
    """
    lists = []
    for text in texts:
        cards = named_cards([text], report)
        for card in cards:
            if reason := why_no_image(card):
                raise reason
        lists.append(" ".join(card.arch.capability for card in cards))
    return lists
