"""From names as people write them to cards, and what each name is taken for. One reading for every command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from images.cards.choose import why_no_image
from images.cards.data import Card, all_cards
from images.cards.names import BY_ARCH, NameMatch, match_card
from images.cards.this_machine import card_called, read_machine
from images.cards.written import Written, read_written
from images.core import Report, UsageError
from images.matrix import Arch

_GIGABYTES = re.compile(r"(\d{1,4}(?:\.\d+)?)\s*(?:gi?b?)?", re.IGNORECASE)
_SIZE = re.compile(r" \d+ GB\b")
_MIG_NAME = re.compile(r"(?:\bmig )?\b((?:\d+c\.)?\d+g\.\d+gb\S*)$", re.IGNORECASE)
# NVIDIA's MIG user guide, supported GPUs: A30, A100, Hopper, Blackwell, Thor.
_WITH_MIG = tuple(Arch(*parts) for parts in ((8, 0), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0)))
_LIST = "; ./inv cards lists the names"


@dataclass(frozen=True)
class Named:
    """A card that was named, as what, how many of it, and whether a number was said."""

    card: Card
    text: str
    count: int
    counted: bool


def named_cards(texts: Sequence[str], report: Report | None = None, *, by_arch: bool = False) -> tuple[Card, ...]:
    """The cards that names stand for, in their order, each as often as it was said; what each is taken for is told.

    "T4, RTX 4090" and "T4 and RTX 4090" are two cards, as "2 x T4" and "T4 x2". ``by_arch``: the command takes
    ``--arch`` instead. Raises UsageError for a name that is no card's or several cards', and for a number that cannot
    be.
    """
    return tuple(one.card for one in read_names(texts, report, by_arch) for _ in range(one.count))


def read_names(texts: Sequence[str], report: Report | None, by_arch: bool = False, *, stated: float = 0) -> list[Named]:
    """Each name's card, how many of it, and whether a number was said; told and raised as by `named_cards`.

    ``stated`` is the memory in GB that was said beside the name, 0 where none was.
    """
    known = _whole_names()
    read = []
    for text in texts:
        for one in read_written(text, known):
            match = _counted(one, by_arch)
            if report is not None:
                report.line(f"{one.name}: {_told(match, stated)}")
            read.append(Named(match.card, one.name, one.count, one.counted))
    return read


def _counted(one: Written, by_arch: bool) -> NameMatch:
    """The card of a name; of several, "3090s" is the plural where no card is called so."""
    try:
        return _matched(one.name, by_arch)
    except UsageError:
        if one.count < 2 or not one.name.lower().endswith("s"):
            raise
        return _matched(one.name[:-1], by_arch)


@cache
def _whole_names() -> frozenset[str]:
    return frozenset(name.lower() for card in all_cards() for name in (card.name, *card.aliases))


@lru_cache(maxsize=256)
def _listed(name: str) -> NameMatch:
    return match_card(name, all_cards())


def _matched(name: str, by_arch: bool) -> NameMatch:
    mig = _MIG_NAME.search(name.strip())
    if mig:
        name = f"{name.strip()[: mig.start()].strip()} MIG {mig[1]}"
        if mig.start() == 0:
            raise UsageError(f"{mig[0]!r} names no card", do=f"the card's name too: --card 'A100 MIG {mig[1]}'")
    try:
        match = _listed(name)
    except UsageError as error:
        if own := card_called(name, read_machine()):  # no list has it, and NVML calls a card of this machine so
            return NameMatch(own)
        if by_arch:
            raise
        raise UsageError(error.what, cause=error.cause, do=error.do.replace(f", or {BY_ARCH}", _LIST)) from error
    if mig:
        _check_instance(name, match.card)
    elif match.card in all_cards():
        return match
    # A part of a card: its name is what was said, for the whole card's would mean more memory.
    whole = next((card.name for card in all_cards() if replace(card, memory=match.card.memory) == match.card), "")
    return NameMatch(replace(match.card, name=f"{whole} MIG {mig[1]}" if mig and whole else name.strip()))


def _check_instance(name: str, part: Card) -> None:
    """Raises UsageError for an instance of a card that has none, and for one that is larger than its card."""
    whole = name[: name.index(" MIG ")]
    if part.arch not in _WITH_MIG:
        raise UsageError(
            f"{name} cannot be: cards of compute capability {part.arch} are not cut into MIG instances",
            do=f"--card {whole!r}, as a whole",
        )
    most = max(_listed(whole).memories)
    if part.memory > most:
        raise UsageError(
            f"{whole} has no part of {part.memory:g} GB",
            cause=f"all of it is {most:g} GB",
            do="nvidia-smi -L says the names of MIG instances",
        )


def _told(match: NameMatch, stated: float) -> str:
    """The card, and where its name leaves the memory open, which one is taken and how another is named."""
    card = match.card
    if stated:
        return f"{card.name}, compute capability {card.arch}, with {stated:g} GB as --memory says"
    sizes = " or ".join(f"{size:g}" for size in match.memories)
    told = f"{card.name}, compute capability {card.arch}, {sizes} GB"
    others = {other.memory: other.name for other in match.others if other.memory != card.memory}
    if not others:
        return told
    named = ", ".join(f"--card '{name}'" for _, name in sorted(others.items()))
    return f"{told}: {card.memory:g} GB is taken, as the common one; another is named by its memory: {named}"


def read_gigabytes(text: str) -> float:
    """What ``--memory`` states: "48", "48GB", "47.5". Raises UsageError."""
    match = _GIGABYTES.fullmatch(text.strip())
    found = float(match[1]) if match else 0
    if not 0 < found <= 2048:
        raise UsageError(f"--memory {text!r} is no card's memory", do="its GB: --memory 48")
    return found


def with_memory(card: Card, memory: float) -> Card:
    """The card of this name that is sold with so much memory; without one, a rebuilt card."""
    alike = [card]
    with suppress(UsageError):
        match = match_card(_SIZE.sub("", card.name), all_cards())
        alike += [match.card, *match.others]
    sold = [other for other in alike if other.memory == memory and other.arch == card.arch]
    return sold[0] if sold else replace(card, memory=memory)


def archs_of(texts: Sequence[str], report: Report) -> list[str]:
    """The arch lists that named cards stand for, one for each text; "T4, RTX 4090" is one image for both.

    Raises UsageError for a name that is no card's or several cards', NoImageFits for a card that no image can serve.
    """
    lists = []
    for text in texts:
        cards = dict.fromkeys(named_cards([text], report, by_arch=True))
        for card in cards:
            if reason := why_no_image(card):
                raise reason
        lists.append(" ".join(dict.fromkeys(card.arch.capability for card in cards)))
    return lists
