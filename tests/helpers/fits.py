"""Asks for tests of fit: real cards and variants of the project's own matrix."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from images.cards.asked import AskedCards
from images.cards.choose import choose_images
from images.cards.data import Card, all_cards
from images.cards.names import match_card
from images.matrix.arch import Arch
from images.matrix.variants import Variant
from images.run.fit.choose import Ask
from images.run.fit.model import Model, model_by_name
from images.run.fit.usable_memory import sold_bytes, usable
from tests.helpers import matrices

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
SM86 = "cu130-vllm0.33.0-flash-attn-sm86"


def model(name: str) -> Model:
    named = model_by_name(name)
    assert named is not None
    return named


def unpadded() -> Model:
    """72B in AWQ as it would be without the padding of the published one."""
    whole = model("72b-awq")
    return replace(whole, shape=replace(whole.shape, intermediate=29568))


@cache
def card(name: str) -> Card:
    return match_card(name, all_cards()).card


def variant(name: str) -> Variant:
    return matrices.variants().valid[name]


@cache
def image(arch: Arch) -> Variant:
    """The recommended one."""
    choice = choose_images(matrices.matrix(), matrices.variants(), [Card("a card", arch, 1000, "test")])
    return choice.picks[0].variant


def ask(what: str | Model, on: str, count: int = 1, nodes: int = 1, *, by: str = "", tp: int = 0, pp: int = 0) -> Ask:
    """``by`` is a variant's id; without it the card's own image."""
    named_card = card(on)
    return Ask(
        model(what) if isinstance(what, str) else what,
        variant(by) if by else image(named_card.arch),
        AskedCards((named_card,) * count, None),
        usable(sold_bytes(named_card)),
        nodes,
        tp=tp,
        pp=pp,
    )
