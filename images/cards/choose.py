"""Which image a card should have, given its driver; or why none, and what to do instead. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from images.cards.data import Card
from images.core import CardstockError, NoImageFits, NothingSelected
from images.matrix import (
    Arch,
    Driver,
    Matrix,
    Selectors,
    Variant,
    Variants,
    driver_branches,
    driver_suffices,
    driver_supports,
    parse_driver,
    select,
)

# GB of weights of the smallest Qwen2.5-VL, 3B in AWQ: its parameters, 4 bits each but for the vision tower.
SMALLEST_WEIGHTS = 3.4
_OLDEST = Arch(5, 0)


@dataclass(frozen=True)
class Pick:
    """An image and the cards it is for; ``notes`` say what is special about it."""

    variant: Variant
    cards: tuple[Card, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """A card that gets no image, and why."""

    card: Card
    why: CardstockError


@dataclass(frozen=True)
class ImageChoice:
    """One pick that covers all cards, or one for each compute capability; and the cards that get none."""

    picks: tuple[Pick, ...]
    refusals: tuple[Refusal, ...] = ()

    @property
    def one_for_all(self) -> bool:
        """Whether a single image serves every card."""
        return len(self.picks) == 1 and not self.refusals


def choose_images(
    matrix: Matrix,
    variants: Variants,
    cards: Sequence[Card],
    driver: Driver | None = None,
    locked: Mapping[str, bool] | None = None,
) -> ImageChoice:
    """The recommended image for cards of one machine.

    ``driver`` None: any. ``locked`` says of each lock's name whether it is; of those that the driver runs, an image of
    a locked stack is preferred.
    """
    refusals = [Refusal(card, why) for card in cards if (why := why_no_image(card))]
    refused = {refusal.card for refusal in refusals}
    left = [card for card in cards if card not in refused]
    chooser = _Chooser(matrix, variants, driver, locked or {})
    groups: dict[Arch, list[Card]] = {}
    for card in left:
        groups.setdefault(card.arch, []).append(card)
    picks: dict[str, Pick] = {}
    for same in groups.values():
        try:
            pick = chooser.pick(same)
        except (NoImageFits, NothingSelected) as why:
            refusals += [Refusal(card, why) for card in same]
            continue
        before = picks.get(pick.variant.id)
        picks[pick.variant.id] = Pick(pick.variant, (*(before.cards if before else ()), *same), pick.notes)
    each = tuple(picks.values())
    if len(each) > 1 and (together := _one_for_all(chooser, each)):
        each = (together,)
    return ImageChoice(each, tuple(refusals))


def _one_for_all(chooser: _Chooser, each: Sequence[Pick]) -> Pick | None:
    """One image for the cards of several picks; None without one, or where only the slower server would serve all."""
    try:
        pick = chooser.pick([card for one in each for card in one.cards])
    except (NoImageFits, NothingSelected):
        return None
    slower = pick.variant.backend == "transformers" and any(one.variant.backend != "transformers" for one in each)
    return None if slower else pick


def why_no_image(card: Card) -> NoImageFits | None:
    """Why there can be no image for this card with any stack; None where a stack may have one."""
    if (card.arch.major, card.arch.minor) < (_OLDEST.major, _OLDEST.minor):
        return NoImageFits(
            f"no image for {card.name}: it has compute capability {card.arch}",
            cause="CUDA 12 compiles for 5.0 and newer only, and torch's wheels hold nothing older",
            do="use the cpu image: ./inv build --only 'cpu*'",
        )
    if card.host and card.arch.capability not in ("5.3", "6.2", "7.2", "8.7", "11.0"):
        return NoImageFits(
            f"no image for {card.name}: it sits beside an Arm CPU",
            cause="images here are for x86-64 (linux/amd64): all wheels that are locked are",
            do="use NVIDIA's own vLLM container for Arm on this machine",
            where=card.source,
        )
    if card.memory and card.memory < SMALLEST_WEIGHTS:
        return NoImageFits(
            f"no image for {card.name}: {card.memory:g} GB of memory are too little",
            cause=f"the weights of the smallest Qwen2.5-VL, 3B in AWQ, take {SMALLEST_WEIGHTS} GB",
            do="take another card, or the cpu image: ./inv build --only 'cpu*'",
            where=card.source,
        )
    return None


class _Chooser:
    """Picks one image for cards of which each has one."""

    def __init__(self, matrix: Matrix, variants: Variants, driver: Driver | None, locked: Mapping[str, bool]) -> None:
        self._matrix, self._variants, self._driver = matrix, variants, driver
        self._locked = locked

    def pick(self, cards: Sequence[Card]) -> Pick:
        """Raises NoImageFits or NothingSelected."""
        archs = tuple(sorted({card.arch for card in cards}))
        best = select(self._matrix, self._variants, Selectors(archs=(archs,)))[0]
        driver = self._driver
        if driver is not None and (strangers := [card for card in cards if not driver_supports(driver, card.arch)]):
            raise _driver_mismatch(strangers[0], driver, best)
        if driver is None or driver_suffices(driver, best.min_driver):
            return Pick(best, tuple(cards), self._notes(best))
        able = [v for v in self._variants.valid.values() if v.cuda and driver_suffices(driver, v.min_driver)]
        for among in ([v for v in able if self._locked.get(v.lock, False)], able):
            try:
                variant = self._select(archs, among)
            except (NoImageFits, NothingSelected):
                continue
            older = f"driver {driver} is too old for {best.id}, which needs {best.min_driver}; this one runs on it"
            return Pick(variant, tuple(cards), (older, *self._notes(variant)))
        raise self._too_old(archs, cards, best, driver)

    def _select(self, archs: tuple[Arch, ...], among: Iterable[Variant]) -> Variant:
        some = Variants({variant.id: variant for variant in among}, self._variants.excluded)
        return select(self._matrix, some, Selectors(archs=(archs,)))[0]

    def _notes(self, variant: Variant) -> tuple[str, ...]:
        if self._locked.get(variant.lock, True):
            return ()
        return (f"{variant.lock} is not locked: such an image may be built, and is never published",)

    def _too_old(self, archs: tuple[Arch, ...], cards: Sequence[Card], best: Variant, driver: Driver) -> NoImageFits:
        every = select(self._matrix, self._variants, Selectors(archs=(archs,), all=True))
        least = min(parse_driver(v.min_driver) for v in every if v.min_driver)
        return NoImageFits(
            f"driver {driver} is too old for every image for {' and '.join(card.name for card in cards)}",
            cause=f"{best.id} needs {best.min_driver}, and no image for {' '.join(map(str, archs))} runs below {least}",
            do=f"install driver {best.min_driver} or newer",
            where="CUDA release notes, table 3",
        )


def _driver_mismatch(card: Card, driver: Driver, best: Variant) -> NoImageFits:
    first, last = driver_branches(card.arch)
    if last is not None and driver.branch > last:
        cause = f"branch {last} is the last for Volta and older cards (unverified)"
        return NoImageFits(
            f"driver {driver} does not serve {card.name}", cause=cause, do=f"install a driver of branch {last} or older"
        )
    enough = best.min_driver is not None and parse_driver(best.min_driver).branch >= first
    return NoImageFits(
        f"driver {driver} does not know {card.name}",
        cause=f"branch {first} is the first for cards of compute capability {card.arch}",
        do=f"install driver {best.min_driver} or newer" if enough else f"install a driver of branch {first} or newer",
        where="CUDA release notes, table 3",
    )
