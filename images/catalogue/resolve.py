"""From cards and a driver to the published image: what a repository's catalogue has for them. Pure.

Which image a card should have is images/cards/choose.py's business; here its choice is among what is published.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from images.cards import Card, Refusal, choose_images
from images.catalogue.model import Catalogue, PublishedImage
from images.core import CardstockError, NoImageFits, NothingSelected, closest
from images.matrix import (
    Arch,
    Driver,
    Matrix,
    Selectors,
    Variants,
    covers,
    driver_suffices,
    for_older_drivers,
    parse_arch,
)


@dataclass(frozen=True)
class CardMatch:
    """A published image and the cards it is for; ``notes`` say what is special about it."""

    image: PublishedImage
    cards: tuple[Card, ...]
    notes: tuple[str, ...] = ()


class PassedOver(NamedTuple):
    """A published image that would run on one of the cards, or nearly, and why another one was chosen."""

    image: PublishedImage
    why: str


@dataclass(frozen=True)
class MatchResult:
    """One image for all cards, or one for each kind of card; the cards without one; the images that were not chosen."""

    matches: tuple[CardMatch, ...]
    refusals: tuple[Refusal, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()


def match_images(
    catalogue: Catalogue, matrix: Matrix, variants: Variants, cards: Sequence[Card], driver: Driver | None = None
) -> MatchResult:
    """The published images for cards of one machine. ``driver`` None: any."""
    archs = {card.arch for card in cards}
    kinds = _kinds_for(catalogue, archs)
    known, some = _known(kinds, variants, driver)
    choice = choose_images(matrix, some, cards, driver)
    matches = tuple(CardMatch(known[pick.variant.id], pick.cards, pick.notes) for pick in choice.picks)
    refusals = tuple(_explained(refusal, matrix, variants, driver) for refusal in choice.refusals)
    return MatchResult(matches, refusals, _passed_over(kinds, matches, variants, archs, driver))


def images_for_older_drivers(
    catalogue: Catalogue, matrix: Matrix, variants: Variants, card: Card, than: PublishedImage
) -> list[PublishedImage]:
    """The published images that the card's list has for drivers that are too old for ``than``, in its order."""
    known, some = _known(_kinds_for(catalogue, {card.arch}), variants, None)
    wanted = Selectors(archs=((card.arch,),))
    return [known[one.id] for one in for_older_drivers(matrix, some, wanted, variants.valid[than.variant])]


def _known(
    kinds: Iterable[_Kind], variants: Variants, driver: Driver | None
) -> tuple[dict[str, PublishedImage], Variants]:
    """The published images of these kinds by variant, and their variants alone.

    What the matrix says of a variant's driver may have changed since its image was published: both must hold.
    """
    known = {
        image.variant: image
        for kind in kinds
        for image in kind.images
        if (variant := variants.valid.get(image.variant))
        and (variant.min_driver == kind.min_driver or driver is None or _runs(driver, kind.min_driver))
    }
    some = {name: variant for name, variant in variants.valid.items() if name in known}
    return known, Variants(some, variants.excluded, judge=variants.judge)


@dataclass
class _Kind:
    """The images that run on the same cards by the same driver: what is asked of one of them holds for all."""

    audited: tuple[str, ...]
    cards: int
    min_driver: str | None
    images: list[PublishedImage]


def _kinds_for(catalogue: Catalogue, archs: set[Arch]) -> list[_Kind]:
    """The kinds of images that run on one of these archs."""
    return [kind for kind in _kinds(catalogue) if any(_covers(kind.audited, arch) for arch in archs)]


def _kinds(catalogue: Catalogue) -> Iterable[_Kind]:
    kinds: dict[tuple[object, ...], _Kind] = {}
    for image in catalogue.current.values():
        key = (image.audited, len(image.archs), image.min_driver)
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = _Kind(image.audited, len(image.archs), image.min_driver, [])
        kind.images.append(image)
    return kinds.values()


def _passed_over(
    kinds: Iterable[_Kind], matches: tuple[CardMatch, ...], variants: Variants, archs: set[Arch], driver: Driver | None
) -> tuple[PassedOver, ...]:
    """The images that were not chosen, with the reason, those of a kind together."""
    chosen = {one.image.variant for one in matches}
    valid, out = variants.valid, list[PassedOver]()
    for kind in kinds:
        why = _why(kind, matches, archs, driver)
        left = [image for image in kind.images if image.variant not in chosen]
        out += [PassedOver(image, why if image.variant in valid else _STRANGER) for image in left]
    return tuple(out)


def _why(kind: _Kind, matches: tuple[CardMatch, ...], archs: set[Arch], driver: Driver | None) -> str:
    """Why images of a kind were not chosen."""
    if driver is not None and not _runs(driver, kind.min_driver):
        return f"it needs driver {kind.min_driver}, here is {driver}"
    missing = sorted(arch for arch in archs if not _covers(kind.audited, arch))
    if missing and len(matches) == 1:
        return f"it has no code for {' '.join(map(str, missing))}"
    rivals = [one for one in matches if any(_covers(kind.audited, card.arch) for card in one.cards)]
    if not rivals:
        return "a rule excludes it: invoke explain says which"
    if kind.cards > min(len(one.image.archs) for one in rivals):
        return "it carries code of other cards as well"
    return f"{rivals[0].image.variant} is recommended before it"


_STRANGER = "its variant is not in this checkout's matrix"
_runs = cache(driver_suffices)


@cache
def _covers(audited: tuple[str, ...], card: Arch) -> bool:
    """Whether code for these archs runs on a card; thousands of images have the same few lists."""
    return covers(map(parse_arch, audited), card)


def _explained(refusal: Refusal, matrix: Matrix, variants: Variants, driver: Driver | None) -> Refusal:
    """The refusal of a card; where the matrix has an image for it that is not published, it says how to build it."""
    choice = choose_images(matrix, variants, [refusal.card], driver)
    if not choice.picks:
        return Refusal(refusal.card, choice.refusals[0].why)
    variant = choice.picks[0].variant
    return Refusal(
        refusal.card,
        NoImageFits(
            f"no image for {refusal.card.name} is published here",
            cause=f"the image for it is {variant.id}, and the catalogue has none that this card and driver run",
            do=f"build it: ./inv build --only '{variant.id}'",
        ),
    )


def image_by_name(catalogue: Catalogue, name: str) -> PublishedImage:
    """The image that a tag names: a variant's id, or another moving or immutable tag. Raises NothingSelected."""
    if name in catalogue.moving:
        return catalogue.by_digest[catalogue.moving[name][-1]]
    for image in catalogue.images:
        if image.tag == name:
            return image
    names = [*catalogue.moving, *(image.tag for image in catalogue.images)]
    raise NothingSelected(
        f"nothing is published as {name!r}",
        do=f"nearest: {closest(name, names)}" if names else "this repository is empty",
    )


def require_match(resolved: MatchResult) -> None:
    """Raise the first refusal where no image matches."""
    if not resolved.matches:
        first: CardstockError = resolved.refusals[0].why
        raise first
