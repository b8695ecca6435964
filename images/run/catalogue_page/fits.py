"""What each card can serve with an image: `fit`'s answer for the models that Qwen publishes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from images.cards import AskedCards, Card
from images.core import NoImageFits
from images.matrix import Variant
from images.run.catalogue_page.decisions import CARD, Texts
from images.run.fit import SHAPES, Ask, Fit, Model, fit, model_by_name, sold_bytes, usable

_FORMS = ("", "-awq", "-fp8", "-gptq", "-gptq-int8")
_COUNTS = (2, 4, 8)  # tried where one card is too small
_NOT_KNOWN = "the memory of the card is not known"


@cache
def official_models() -> tuple[Model, ...]:
    """The models that Qwen publishes, in every published form."""
    named = (model_by_name(f"{shape}{form}") for shape in SHAPES for form in _FORMS)
    return tuple(model for model in named if model is not None and model.source)


def fits_of(card: Card, variant: Variant, texts: Texts) -> list[int]:
    """For each of `official_models` the place in ``texts`` of what `answer` says of it."""
    return [texts.place(answer(model, card, variant)) for model in official_models()]


def answer(model: Model, card: Card, variant: Variant) -> tuple[Any, ...]:
    """(cards, tokens of the longest conversation, conversations at a time); or (0, why it cannot be).

    ``cards`` is the least of 1, 2, 4 and 8 that it fits on.
    """
    if not card.memory:
        return (0, _NOT_KNOWN)
    try:
        return _served(_fitted(model, card, variant, 1), 1)
    except NoImageFits as error:
        first = error.cause.replace(card.name, CARD)
    for count in _COUNTS:
        try:
            return _served(_fitted(model, card, variant, count), count)
        except NoImageFits:
            continue
    return (0, first)


def _served(found: Fit, count: int) -> tuple[Any, ...]:
    return (count, found.load.length, found.load.seqs)


def _fitted(model: Model, card: Card, variant: Variant, count: int) -> Fit:
    return fit(Ask(model, variant, AskedCards((card,) * count, None), usable(sold_bytes(card))))


def kinds(cards: Iterable[Card]) -> dict[tuple[str, float], Card]:
    """Of cards that differ in name alone, one: they serve the same. By capability and memory."""
    found: dict[tuple[str, float], Card] = {}
    for card in cards:
        found.setdefault((str(card.arch), card.memory), card)
    return found
