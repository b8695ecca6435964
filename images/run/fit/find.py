"""From what was asked to a fit: which cards, which image, which model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.cards import Card, LocalCard, LocalMachine, asked_cards, choose_images
from images.context import Context
from images.core import NoImageFits, NothingSelected, UsageError, closest, read_json
from images.core.options import option
from images.matrix import Arch, Driver, Variant, Variants
from images.run.fit.alternatives import find_alternatives
from images.run.fit.choose import Ask, Fit, fit
from images.run.fit.model import Model, from_config, model_by_name
from images.run.fit.usable_memory import sold_bytes, usable


@dataclass(frozen=True)
class FitOptions:
    """What `invoke fit` was asked. ``count`` 0: each card named once, or every card of this machine."""

    model: str = option("3b, 7b, 32b or 72b with -fp16, -bf16, -awq or -gptq; or a model's folder", "", positional=True)
    cards: Sequence[str] = option("a card's name; without it the cards of this machine", (), flag="card")
    count: int = option("cards of that name in each machine", 0)
    nodes: int = option("machines", 1)
    driver: str = option("their driver, such as 535.104", "")
    variant: str = option("this image instead of the card's own", "")
    tp: int = option("this tensor parallel size", 0)
    pp: int = option("this pipeline parallel size", 0)
    video: int = option("videos in one request", 0)
    json: bool = option("machine-readable, on stdout alone", False)


@dataclass(frozen=True)
class _Hardware:
    cards: tuple[Card, ...]
    usable: int
    driver: Driver | None


def find_fit(
    context: Context, options: FitOptions, machine: LocalMachine | None = None, model: Model | None = None
) -> Fit:
    """How it is served; ``machine`` stands in for this one, ``model`` is given where it is known already.

    Raises NoImageFits with the nearest that can be, UsageError for words that cannot be read.
    """
    hardware = _hardware(context, options, machine)
    variant = _variant(context, options, hardware)
    ask = _ask(options, model or read_model(options.model), hardware, variant)
    try:
        return fit(ask)
    except NoImageFits as error:
        raise _with_nearest(error, ask) from error


def read_model(text: str) -> Model:
    """A name such as 7b-awq, a repository's name, a folder, or a config.json.

    Raises UsageError for an unknown name, a folder without config.json, and a file that is not one.
    """
    if model := model_by_name(text):
        return model
    path = Path(text).expanduser()
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        what = f"{path.parent} holds no config.json" if path.name == "config.json" else f"no model is called {text!r}"
        raise UsageError(what, do="3b, 7b, 32b or 72b with -fp16, -bf16, -awq or -gptq; or a model's folder")
    data = read_json(path, "download the model's config.json anew", most=1 << 20)
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no settings", do="download the model's config.json anew")
    return from_config(data, str(path.parent))


def _hardware(context: Context, options: FitOptions, machine: LocalMachine | None) -> _Hardware:
    asked = asked_cards(
        options.cards,
        options.driver,
        context.report,
        purpose="to fit a model to",
        do="name one: --card 'RTX 2080 Ti'",
        machine=machine,
    )
    if asked.machine is None:
        if any(not card.memory for card in asked.cards):
            unknown = next(card.name for card in asked.cards if not card.memory)
            raise NoImageFits(f"the memory of {unknown} is not known", do="say a card of its family with memory")
        return _Hardware(asked.cards, min(usable(sold_bytes(card)) for card in asked.cards), asked.driver)
    here = asked.machine
    context.report.line(f"this machine: driver {here.driver}, {', '.join(card.name for card in here.cards)}")
    return _Hardware(asked.cards, min(usable(_bytes(card)) for card in here.cards), asked.driver)


def _bytes(card: LocalCard) -> int:
    return max((part.memory for part in card.slices), default=card.memory)


def _variant(context: Context, options: FitOptions, hardware: _Hardware) -> Variant:
    if options.variant:
        return find_variant(context.variants, options.variant)
    choice = choose_images(context.matrix, context.variants, hardware.cards, hardware.driver, context.locked)
    if choice.refusals:
        raise choice.refusals[0].why
    if len(choice.picks) > 1:
        raise NoImageFits(
            "no image serves these cards together",
            cause="; ".join(f"{pick.cards[0].name}: {pick.variant.id}" for pick in choice.picks),
            do="fit each kind by itself: --card NAME --count N",
        )
    for note in choice.picks[0].notes:
        context.report.line(f"note: {note}")
    return choice.picks[0].variant


def find_variant(variants: Variants, name: str) -> Variant:
    """The variant of this id. Raises NothingSelected with the nearest."""
    if name not in variants.valid:
        raise NothingSelected(
            f"there is no variant {name}",
            do=f"nearest id: {closest(name, variants.valid)}. All ids: ./inv plan --all",
        )
    return variants.valid[name]


def _ask(options: FitOptions, model: Model, hardware: _Hardware, variant: Variant) -> Ask:
    names = list(dict.fromkeys(card.name for card in hardware.cards))
    least: Arch = min(card.arch for card in hardware.cards)
    count = len(hardware.cards)
    if options.count:
        count = options.count if len(names) == 1 else count * options.count
    return Ask(
        model,
        variant,
        " and ".join(names),
        least,
        hardware.usable,
        count,
        options.nodes,
        hardware.driver,
        options.tp,
        options.pp,
        options.video,
    )


def _with_nearest(error: NoImageFits, ask: Ask) -> NoImageFits:
    others = [_typed(other) for other in find_alternatives(ask)]
    if not others:
        return error
    do = f"{error.do}; what fits: {' or '.join(others)}"
    return NoImageFits(error.what, cause=error.cause, do=do, where=error.where)


def _typed(ask: Ask) -> str:
    words = ["./inv", "fit", "--model", ask.model.source if ask.model.shape.name == "model" else ask.model.name]
    words += ["--card", ask.card] + (["--count", str(ask.count)] if ask.count > 1 else [])
    return shlex.join([*words, *(["--nodes", str(ask.nodes)] if ask.nodes > 1 else [])])
