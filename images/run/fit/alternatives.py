"""What could be served instead, where the model that was asked for does not fit. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from packaging.version import Version

from images.core import CardstockError, NoImageFits
from images.matrix import Variant
from images.run.fit.backends import backend_for
from images.run.fit.choose import Ask, fit
from images.run.fit.families import SHAPES
from images.run.fit.model import Model, model_by_name
from images.run.fit.usable_memory import sold_bytes, usable

_MORE_CARDS = (2, 4, 8)


def find_alternatives(ask: Ask) -> tuple[Ask, ...]:
    """Up to two alternatives: the nearest model that fits the same cards, and the same size on more cards."""
    free = replace(ask, tp=0, pp=0)
    here = _first(replace(free, model=model) for model in _models(ask.model))
    size = [model for model in _models(ask.model) if model.shape.name == ask.model.shape.name]
    larger = [one for count in _more(ask.count) if (one := _with_cards(free, count))]
    more = _first(replace(one, model=model) for one in larger for model in size)
    same = here is not None and here.model.shape.name == ask.model.shape.name
    return tuple(one for one in (here, None if same else more) if one)


def find_other_image(ask: Ask, variants: Iterable[Variant]) -> Ask | None:
    """The model, or its nearest, on the same cards by another image, where the chosen one does not know family or form.

    ``variants``: those to try. The newest vLLM and the nearest arch go first, a candidate's attention last; None where
    memory is the reason, where the image was named, or where none serves it.
    """
    if ask.named or _knows(ask):
        return None
    covering = [one for one in variants if all(any(own.runs_on(arch) for own in one.archs) for arch in ask.on.archs)]
    same = [one for one in covering if len(one.archs) == len(ask.variant.archs) and one.backend == "vllm"]
    ranked = sorted(same, key=lambda one: (one.attention != "flashinfer", _vllm(one), one.archs), reverse=True)
    free = replace(ask, tp=0, pp=0, named=True)
    return _first(replace(free, variant=one, model=model) for model in _models(ask.model) for one in ranked)


def _knows(ask: Ask) -> bool:
    try:
        backend_for(ask.model, ask.variant, ask.arch)
    except NoImageFits:
        return False
    return True


def _vllm(variant: Variant) -> Version:
    pin = variant.pin("vllm")
    return Version(pin.version) if pin else Version("0")


def _with_cards(ask: Ask, count: int) -> Ask | None:
    """The same with so many cards of its kind, by a name that means them; None where there is none to be had."""
    if len(ask.on.kinds) > 1 or ask.on.kinds[0].mig:
        return None
    if (on := ask.on.times(count)) is None:
        return None
    return replace(ask, on=on, usable=usable(sold_bytes(on.cards[0])) if ask.on.machine else ask.usable)


def _first(asks: Iterable[Ask]) -> Ask | None:
    for ask in asks:
        try:
            fit(ask)
        except CardstockError:
            continue
        return ask
    return None


def _more(count: int) -> Iterator[int]:
    return (more for more in _MORE_CARDS if more > count)


def _models(model: Model) -> Iterator[Model]:
    """The same model, its other forms, then the smaller ones from the largest on; of somebody's own only itself."""
    yield model
    if model.called or model.shape.name not in SHAPES:
        return
    names = [name for name, shape in SHAPES.items() if shape.family == model.shape.family]
    for size in reversed(names[: names.index(model.shape.name) + 1]):
        for form in ("fp16", "awq", "gptq") if model.dtype == "bfloat16" else ("", "awq", "gptq"):
            other = model_by_name(f"{size}-{form}" if form else size)
            if other is not None and other != model:
                yield other
