"""Which image cards get, for every compute capability and driver, as tables. Pure.

What decides are `match_images` (of a catalogue) and `choose_images` (of the matrix): they are asked here for each
capability, each set of capabilities, and one driver of each step, and the page looks their answers up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from images.cards import Card, all_cards, choose_images, named_cards, plain_name, why_no_image
from images.catalogue import Catalogue, match_images
from images.core import CardstockError, UsageError
from images.matrix import Arch, Driver, Matrix, Variants, driver_branches, parse_driver

# Kinds of cards that the page takes together; sets of capabilities are worked out up to so many.
MOST = 3
# What stands in a sentence for what its reader has named: characters that no text of ours has.
CARD, DRIVER, NAME = "\ue000", "\ue001", "\ue002"
_ENOUGH = 10_000.0  # GB: a card that no model is too large for
_NO_CARD = "qqzxv"  # what no card is called, and no other maker's either
_NO_DRIVER = "x"
_FIRST = Arch(5, 0)  # no image is for an older card
# What is no card of NVIDIA's, as people type it: `named_cards` says what to do instead.
_OTHERS = (
    "cpu, none, no gpu, rx 6600, rx 6700 xt, rx 6800 xt, rx 6900 xt, rx 7600, rx 7700 xt, rx 7800 xt, rx 7900 xt,"
    " rx 7900 xtx, rx 9060 xt, rx 9070, rx 9070 xt, radeon vii, vega 64, mi50, mi60, mi100, mi210, mi250, mi250x,"
    " mi300a, mi300x, mi325x, mi355x, amd, arc a380, arc a750, arc a770, arc b570, arc b580, gaudi 2, gaudi 3, "
    "intel, m1, m1 pro, m1 max, m1 ultra, m2, m2 pro, m2 max, m2 ultra, m3, m3 pro, m3 max, m3 ultra, m4, m4 pro,"
    " m4 max, m5, mac, apple, ascend 910b, ascend 310p, tpu, trainium, inferentia"
).split(", ")
_FAMILY = re.compile(r"(?:geforce|rtx|gtx|tesla|quadro|titan) (?=.)")


@dataclass(frozen=True)
class Given:
    """An image, the cards of a request that it is for by their places, and what is special about it."""

    variant: str
    cards: tuple[int, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Why:
    """Why a card gets no image: `CardstockError`'s sentences, with marks for names."""

    what: str
    cause: str
    do: str

    @classmethod
    def of(cls, error: CardstockError) -> Why:
        """The sentences of an error."""
        return cls(error.what, error.cause, error.do)


Decide = Callable[[Sequence[Card], Driver | None], "tuple[tuple[Given, ...], dict[Card, Why]]"]


def decider(
    matrix: Matrix, variants: Variants, catalogue: Catalogue | None, locked: Mapping[str, bool] | None = None
) -> Decide:
    """What decides: the published images for cards, or without a catalogue those of the matrix."""

    def recommended(cards: Sequence[Card], driver: Driver | None) -> tuple[tuple[Given, ...], dict[Card, Why]]:
        found = choose_images(matrix, variants, cards, driver, locked)
        given = (Given(one.variant.id, _places(one.cards, cards), one.notes) for one in found.picks)
        return tuple(given), {one.card: Why.of(one.why) for one in found.refusals}

    if catalogue is None:
        return recommended
    known = catalogue

    def published(cards: Sequence[Card], driver: Driver | None) -> tuple[tuple[Given, ...], dict[Card, Why]]:
        found = match_images(known, matrix, variants, cards, driver)
        given = (Given(one.image.variant, _places(one.cards, cards), one.notes) for one in found.matches)
        return tuple(given), {one.card: Why.of(one.why) for one in found.refusals}

    return published


def _places(some: Iterable[Card], cards: Sequence[Card]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(cards.index(card) for card in some))


@dataclass
class Texts:
    """Sentences and other values, each once: tables have their places in the list."""

    values: list[Any] = field(default_factory=list)
    _places: dict[Any, int] = field(default_factory=dict, repr=False)

    def place(self, value: Any) -> int:
        """Where it stands; added at the end if it is new."""
        if value not in self._places:
            self._places[value] = len(self.values)
            self.values.append(value)
        return self._places[value]


class _Marked(Driver):
    """A driver that is written as a mark, so that a sentence about it fits every driver of its step."""

    def __str__(self) -> str:
        return DRIVER


def driver_steps(variants: Variants, catalogue: Catalogue | None) -> list[tuple[int, ...]]:
    """Where answers may change: the lowest version (`Driver.parts`) of each step after the first."""
    least = {variant.min_driver for variant in variants.valid.values()}
    least |= {image.min_driver for image in catalogue.images} if catalogue else set()
    steps = {parse_driver(text).parts for text in least if text}
    for card in all_cards():
        first, last = driver_branches(card.arch)
        steps |= {(first,)} if first else set()
        steps |= {(last + 1,)} if last is not None else set()
    return sorted(steps)


def drivers_of_steps(steps: Sequence[tuple[int, ...]]) -> list[Driver]:
    """One driver for each step, the one before the first of ``steps`` too. Raises ValueError where a step is too short.

    A version of two numbers means the newest of them (`newest_of`), so it is in its step.
    """
    found: list[Driver] = [_Marked((100, 0)), *(_Marked((*step, 0)[:2]) for step in steps)]
    for driver, after in zip(found, steps, strict=False):
        if (*driver.parts, 999) >= after:
            raise ValueError(f"no driver of two numbers lies before {after}")
    return found


def tables(decide: Decide, cards: Sequence[Card], steps: Sequence[tuple[int, ...]], texts: Texts) -> dict[str, Any]:
    """The answers for the capabilities of ``cards``.

    "refused": for each capability a row of reasons (places in ``texts``, -1 for none) by step, the first for an unknown
    driver; "sets": what sets of capabilities ("3,5") get (places in ``texts``); "given": for each
    step the place of its "sets".
    """
    archs = sorted({card.arch for card in cards})
    drivers: list[Driver | None] = [None, *drivers_of_steps(steps)]
    too_old = {number for number, arch in enumerate(archs) if why_no_image(_any_card(arch))}
    refused = [[_refusal(decide, arch, driver, texts) for driver in drivers] for arch in archs]
    given: list[int] = []
    kinds = Texts()
    for at, driver in enumerate(drivers):
        served = [number for number in range(len(archs)) if refused[number][at] < 0 and number not in too_old]
        rows: dict[str, int] = {}
        for count in range(1, MOST + 1):
            for some in combinations(served, count):
                picks, _ = decide([_any_card(archs[number]) for number in some], driver)
                value = tuple((one.variant, one.cards, one.notes) for one in picks)
                rows[",".join(map(str, some))] = texts.place(value)
        given.append(kinds.place(tuple(rows.items())))
    sets = [dict(rows) for rows in kinds.values]
    return {
        "archs": [str(arch) for arch in archs],
        "steps": [list(step) for step in steps],
        "refused": refused,
        "sets": sets,
        "given": given,
    }


def _any_card(arch: Arch) -> Card:
    return Card(CARD, arch, _ENOUGH, "")


def _refusal(decide: Decide, arch: Arch, driver: Driver | None, texts: Texts) -> int:
    card = _any_card(arch)
    if why_no_image(card):
        return -1  # each card of it is refused by itself
    _, refused = decide([card], driver)
    return texts.place(refused[card]) if card in refused else -1


def own_refusal(card: Card, texts: Texts) -> int:
    """Why this card gets no image with any driver (a place in ``texts``); -1 where it may get one."""
    error = why_no_image(replace(card, name=CARD))
    return -1 if error is None else texts.place(Why.of(error))


def unknown_card() -> Why:
    """What is said of a name that no card has and none is near to, with `NAME` where it stands, quoted."""
    try:
        named_cards([_NO_CARD])
    except UsageError as error:
        return _marked(error, repr(_NO_CARD), NAME)
    raise AssertionError(f"a card is called {_NO_CARD}")


def unknown_driver() -> Why:
    """What is said of a driver that cannot be read."""
    try:
        parse_driver(_NO_DRIVER)
    except UsageError as error:
        return _marked(error, repr(_NO_DRIVER), NAME)
    raise AssertionError(f"{_NO_DRIVER} is a driver")


def _marked(error: CardstockError, text: str, mark: str) -> Why:
    return Why(*(sentence.replace(text, mark) for sentence in (error.what, error.cause, error.do)))


def spellings(cards: Sequence[Card]) -> dict[str, int | Why]:
    """What people type for cards, by `plain_name` -> the card's place, or what is said of the name.

    The whole names and other names of all cards; of those that may have an image also these without the words of a
    family before them, and without words behind them; and what people type that is no card of NVIDIA's.
    """
    places = {card: at for at, card in enumerate(cards)}
    out: dict[str, int | Why] = {}
    for at, card in enumerate(cards):
        for name in (card.name, *card.aliases):
            out.setdefault(plain_name(name), at)
    newer = [name for name, at in out.items() if isinstance(at, int) and cards[at].arch >= _FIRST]
    shorter = {text for name in newer for begun in _without_family(name) for text in _without_end(begun)}
    for text in sorted({*shorter, *_OTHERS} - set(out)):
        try:
            (card,) = named_cards([text])
        except (UsageError, ValueError) as error:
            if isinstance(error, CardstockError):
                out[text] = Why(error.what.replace(repr(text), NAME), error.cause, error.do)
            continue
        if card in places:
            out[text] = places[card]
    return out


def _without_end(name: str) -> list[str]:
    """The name, and what is left of it word by word, as long as it has a number."""
    words = name.split()
    kept = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return [text for text in kept if any(letter.isdigit() for letter in text)]


def _without_family(name: str) -> list[str]:
    out = [name]
    while (match := _FAMILY.match(out[-1])) is not None:
        out.append(out[-1][match.end() :])
    return out
