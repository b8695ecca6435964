"""From cards and a driver to the published image: what a repository's catalogue has for them. Pure.

Which image a card should have is images/cards/choose.py's business; here its choice is among what is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from images.arch import Arch, covers, parse_arch
from images.cards.choose import Refusal, choose
from images.cards.data import Card
from images.catalogue import Catalogue, Image
from images.drivers import Driver, runs
from images.errors import CardstockError, NoImageFits
from images.matrix import Matrix
from images.nearest import nearest
from images.variants import Variants


@dataclass(frozen=True)
class Found:
    """A published image and the cards it is for; ``notes`` say what is special about it."""

    image: Image
    cards: tuple[Card, ...]
    notes: tuple[str, ...] = ()


class Lost(NamedTuple):
    """A published image that would run on one of the cards, or nearly, and why another one was chosen."""

    image: Image
    why: str


@dataclass(frozen=True)
class Resolved:
    """What was found: one image for all cards, or one for each kind; the cards without one; the images not chosen."""

    found: tuple[Found, ...]
    refusals: tuple[Refusal, ...] = ()
    lost: tuple[Lost, ...] = ()


def resolve(
    catalogue: Catalogue, matrix: Matrix, variants: Variants, cards: Sequence[Card], driver: Driver | None = None
) -> Resolved:
    """The published images for cards of one machine. ``driver`` None: any."""
    archs = {card.arch for card in cards}
    current = catalogue.current.values()
    able = {audited for audited in {image.audited for image in current} if any(_covers(audited, a) for a in archs)}
    near = [image for image in current if image.audited in able]
    # What the matrix says of a variant's driver may have changed since its image was published: both must hold.
    known = {
        image.variant: image
        for image in near
        if (variant := variants.valid.get(image.variant))
        and (variant.min_driver == image.min_driver or driver is None or _runs(driver, image.min_driver))
    }
    some = Variants({name: variants.valid[name] for name in variants.valid if name in known}, variants.excluded)
    choice = choose(matrix, some, cards, driver)
    found = tuple(Found(known[pick.variant.id], pick.cards, pick.notes) for pick in choice.picks)
    refusals = tuple(_explained(refusal, matrix, variants, driver) for refusal in choice.refusals)
    chosen = {one.image.digest for one in found}
    why = _Why(found, archs, driver)
    lost = (
        Lost(
            image, why.of(image) if image.variant in variants.valid else "its variant is not in this checkout's matrix"
        )
        for image in near
        if image.digest not in chosen
    )
    return Resolved(found, refusals, tuple(lost))


_runs = cache(runs)


@cache
def _covers(audited: tuple[str, ...], card: Arch) -> bool:
    """Whether code for these archs runs on a card; thousands of images have the same few lists."""
    return covers(map(parse_arch, audited), card)


def _explained(refusal: Refusal, matrix: Matrix, variants: Variants, driver: Driver | None) -> Refusal:
    """Where the matrix has an image for the card and only the repository has none, say that instead."""
    choice = choose(matrix, variants, [refusal.card], driver)
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


class _Why:
    """Why images are not the ones that were found: worked out once for all of the same archs and driver."""

    def __init__(self, found: tuple[Found, ...], archs: set[Arch], driver: Driver | None) -> None:
        self._found, self._archs, self._driver = found, archs, driver
        self._known: dict[tuple[object, ...], str] = {}

    def of(self, image: Image) -> str:
        key = (image.audited, len(image.archs), image.min_driver)
        if key not in self._known:
            self._known[key] = self._work_out(image)
        return self._known[key]

    def _work_out(self, image: Image) -> str:
        if self._driver is not None and not _runs(self._driver, image.min_driver):
            return f"it needs driver {image.min_driver}, here is {self._driver}"
        missing = sorted(arch for arch in self._archs if not _covers(image.audited, arch))
        if missing and len(self._found) == 1:
            return f"it has no code for {' '.join(map(str, missing))}"
        rivals = [one for one in self._found if any(_covers(image.audited, card.arch) for card in one.cards)]
        if not rivals:
            return "a rule excludes it: invoke explain says which"
        if len(image.archs) > min(len(one.image.archs) for one in rivals):
            return "it carries code of other cards as well"
        return f"{rivals[0].image.variant} is recommended before it"


def by_name(catalogue: Catalogue, name: str) -> Image:
    """The image that a tag names: a variant's id, or another moving or immutable tag. Raises NoImageFits."""
    if name in catalogue.moving:
        return catalogue.by_digest[catalogue.moving[name][-1]]
    for image in catalogue.images:
        if image.tag == name:
            return image
    names = [*catalogue.moving, *(image.tag for image in catalogue.images)]
    raise NoImageFits(
        f"nothing is published as {name!r}",
        do=f"nearest: {nearest(name, names)}" if names else "this repository is empty",
    )


def refuse_all(resolved: Resolved) -> None:
    """Raise the first refusal where nothing was found."""
    if not resolved.found:
        first: CardstockError = resolved.refusals[0].why
        raise first
