"""Which image a card should have, given its driver; or why none, and what to do instead. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from images.cards.data import Card
from images.core import CardstockError, NoImageFits, NothingSelected
from images.matrix import (
    Arch,
    Driver,
    Matrix,
    Selectors,
    Variant,
    Variants,
    driver_does_not_serve,
    driver_suffices,
    driver_supports,
    driver_too_old,
    for_older_drivers,
    is_recommended,
    select,
)

# GB of weights of the smallest Qwen2.5-VL, 3B in AWQ: its parameters, 4 bits each but for the vision tower.
SMALLEST_WEIGHTS = 3.4
OLDEST_ARCH = Arch(5, 0)


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
    """The recommended image for cards of one machine: the first of the list of the oldest one that ``driver`` runs.

    ``driver`` None: any. ``locked`` says of each lock's name whether it is; where the driver runs nothing of the list,
    an image of a locked stack is preferred.
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
    if (card.arch.major, card.arch.minor) < (OLDEST_ARCH.major, OLDEST_ARCH.minor):
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
        wanted = Selectors(archs=(archs,))
        first = select(self._matrix, self._variants, wanted)[0]
        driver = self._driver
        if driver is None:
            return Pick(first, tuple(cards), (*self._for_older(first, wanted), *self._notes(first)))
        if strangers := [card for card in cards if not driver_supports(driver, card.arch)]:
            raise driver_does_not_serve(strangers[0].name, strangers[0].arch, driver, self._listed(first, wanted))
        if driver_suffices(driver, first.min_driver):
            return Pick(first, tuple(cards), self._notes(first))
        try:
            (variant,) = select(self._matrix, self._variants, replace(wanted, driver=driver), self._locked)
        except NoImageFits as error:  # it knows archs, and here cards have names
            every = select(self._matrix, self._variants, replace(wanted, all=True))
            names = " and ".join(card.name for card in cards)
            raise driver_too_old(names, archs, every, self._listed(first, wanted), driver) from error
        older = f"driver {driver} is too old for {first.id}, which needs {first.min_driver}; this one runs on it"
        if not is_recommended(self._matrix, variant, wanted):
            older += ", and is not among the recommended ones"
        return Pick(variant, tuple(cards), (older, *self._notes(variant)))

    def _for_older(self, first: Variant, wanted: Selectors) -> tuple[str, ...]:
        """What older drivers get of the list, where nobody said which driver there is."""
        return tuple(
            f"with a driver older than {before.min_driver} it is {one.id}, driver from {one.min_driver}"
            for before, one in pairwise(self._listed(first, wanted))
        )

    def _listed(self, first: Variant, wanted: Selectors) -> tuple[Variant, ...]:
        """The first, and those of the list for drivers that are too old for it."""
        return (first, *for_older_drivers(self._matrix, self._variants, wanted, first))

    def _notes(self, variant: Variant) -> tuple[str, ...]:
        if self._locked.get(variant.lock, True):
            return ()
        return (f"{variant.lock} is not locked: such an image may be built, and is never published",)
