"""From what was asked to a fit: which cards, which image, which model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from images.cards import AskedCards, Card, LocalMachine, Refusal, Selection, asked_cards, choose_images
from images.context import Context
from images.core import CardstockError, NoImageFits, NothingSelected, UsageError, closest, read_json
from images.core.options import option
from images.docker import ALL_CARDS, NO_CARDS, read_gpus
from images.matrix import Variant, Variants
from images.run.fit.alternatives import find_alternatives, find_other_image
from images.run.fit.choose import Ask, Fit, fit
from images.run.fit.config import from_config
from images.run.fit.model import Model
from images.run.fit.names import FORMS_TOLD, by_name_alone, is_repository, not_understood, published, refuse_others
from images.run.fit.typed import fit_line
from images.run.fit.usable_memory import sold_bytes, usable

PICKING = "--gpus device={}"


@dataclass(frozen=True)
class FitOptions:
    """What `invoke fit` was asked. ``count`` 0 and ``gpus`` "": the cards that are named, or all of this machine."""

    model: str = option(
        "7b-awq, qwen2-vl-7b, qwen3-vl-8b and their like (docs/fit.md); a repository OWNER/NAME; or a model's folder",
        "",
        positional=True,
    )
    cards: Sequence[str] = option(
        "a card's name, or '2 x NAME'; repeat for the cards of one machine; without it this machine's", (), flag="card"
    )
    count: int = option("cards in each machine, as --gpus 2", 0)
    gpus: str = option("all, 2 or device=0,2 of the cards of a machine, as docker takes it", "")
    memory: str = option("with --card: its memory in GB where it is another than it is sold with, such as 48", "")
    nodes: int = option("machines", 1)
    driver: str = option("their driver, such as 535.104", "")
    variant: str = option("this image instead of the card's own", "")
    tp: int = option("this tensor parallel size", 0)
    pp: int = option("this pipeline parallel size", 0)
    video: int = option("videos in one request", 0)
    config: str = option("the config.json of --model, where no hub is reached", "")
    json: bool = option("machine-readable, on stdout alone", False)


def find_fit(
    context: Context,
    options: FitOptions,
    machine: LocalMachine | None = None,
    model: Model | None = None,
    picking: str = PICKING,
) -> Fit:
    """How it is served; ``machine`` stands in for this one, ``model`` is given where it is known already.

    ``picking`` is how cards are picked where they were said: a flag, or a line of hosts.yaml.

    Raises NoImageFits with the nearest that can be, UsageError for words that cannot be read.
    """
    on = _cards(context, options, machine)
    variant = _variant(context, options, on, picking)
    ask = Ask(
        model or read_model(options.model),
        variant,
        on,
        min(_usable(on)),
        options.nodes,
        options.tp,
        options.pp,
        options.video,
        named=bool(options.variant),
    )
    try:
        return fit(ask)
    except NoImageFits as error:
        locked = [one for one in context.variants.valid.values() if context.locked.get(one.lock, True)]
        raise _with_nearest(error, ask, locked, options.config) from error


def read_model(text: str) -> Model:
    """A name such as 7b-awq, a repository's name, a folder, or a config.json. No hub is asked.

    Raises UsageError for a name that is not understood whole, a folder without config.json, a file that is not one.
    """
    if not text.strip():
        raise not_understood(text)
    path = Path(text).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return read_config_file(text)
    if found := published(text):
        return found
    if path.is_dir():
        return read_config_file(text)
    refuse_others(text)
    if found := by_name_alone(text):
        return found
    raise not_understood(text)


def read_config_file(text: str, called: str = "") -> Model:
    """The model of a folder or of a config.json; ``called`` is the name it is known by, else the folder.

    Raises UsageError for a folder without config.json, and for a file that is not one.
    """
    path = Path(text).expanduser()
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"{path.parent} holds no {path.name}", do=FORMS_TOLD)
    data = read_json(path, "download the model's config.json anew", most=1 << 20)
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no settings", do="download the model's config.json anew")
    source = called if is_repository(called) else str(path.parent)
    return replace(from_config(data, source), called=called or str(path.parent))


def _cards(context: Context, options: FitOptions, machine: LocalMachine | None) -> AskedCards:
    asked = asked_cards(
        options.cards,
        options.driver,
        context.report,
        purpose="to fit a model to",
        do="name one: --card 'RTX 2080 Ti'",
        machine=machine,
        selection=_selection(options),
        memory=options.memory,
    )
    if asked.machine is None and not asked.devices and any(card.mig for card in asked.cards):
        context.report.line(
            "note: on its machine a MIG instance is named by its UUID: --gpus device=MIG-… (nvidia-smi -L)"
        )
    if asked.machine:
        here = asked.machine
        if empty := next((card for card in here.cards if card.mig), None):
            raise NoImageFits(
                f"{empty.name} is in MIG mode, and no instance was made",
                cause="a program can use the instances of such a card alone",
                do="nvidia-smi mig -cgi 0 -C makes the largest instance, nvidia-smi -mig 0 makes it a whole card again",
            )
        context.report.line(f"this machine: driver {here.driver}, {', '.join(card.name for card in here.cards)}")
    return asked


def _selection(options: FitOptions) -> Selection:
    """The one number, or the devices, that --count and --gpus say. Raises UsageError where they differ."""
    if options.count < 0 or options.nodes < 1:
        raise UsageError("--count and --nodes must be 1 or more", do="--count 2 for two cards in each machine")
    gpus = read_gpus(options.gpus) if options.gpus else ALL_CARDS
    if gpus == NO_CARDS:
        raise UsageError(f"--gpus {options.gpus}: fit adds up a card's memory", do="--gpus all, or --gpus 2")
    said = len(gpus.devices) or max(0, gpus.count)
    if options.count and said and options.count != said:
        raise UsageError(f"--count {options.count} and --gpus {options.gpus} differ", do="say one of them")
    return Selection(said or options.count if not gpus.devices else 0, gpus.devices)


def _usable(on: AskedCards) -> list[int]:
    """Bytes that a program can have on each card."""
    if on.machine:
        return [usable(card.memory) for card in on.machine.cards]
    for card in on.kinds:
        if not card.memory:
            raise NoImageFits(
                f"the memory of {card.name} is not known", do=f"say it in GB: --card {card.name!r} --memory 8"
            )
    return [usable(sold_bytes(card)) for card in on.cards]


def _variant(context: Context, options: FitOptions, on: AskedCards, picking: str) -> Variant:
    if options.variant:
        return find_variant(context.variants, options.variant)
    choice = choose_images(context.matrix, context.variants, on.cards, on.driver, context.locked)
    if choice.refusals:
        raise _left_out(on, choice.refusals, picking)
    if len(choice.picks) > 1:
        each = " or ".join(picking.format(_places(on, pick.cards)) for pick in choice.picks)
        raise NoImageFits(
            "no image serves these cards together",
            cause="; ".join(f"{pick.cards[0].name}: {pick.variant.id}" for pick in choice.picks),
            do=f"serve each kind by itself: {each}",
        )
    for note in choice.picks[0].notes:
        context.report.line(f"note: {note}")
    return choice.picks[0].variant


def _left_out(on: AskedCards, refusals: Sequence[Refusal], picking: str) -> CardstockError:
    """Why a card gets no image; where others get one, how to leave it out."""
    why = refusals[0].why
    refused = {refusal.card for refusal in refusals}
    good = [card for card in on.kinds if card not in refused]
    if not good:
        return why
    names = " and ".join(dict.fromkeys(refusal.card.name for refusal in refusals))
    do = f"leave out {names}: {picking.format(_places(on, good))}; or {why.do}"
    return type(why)(why.what, cause=why.cause, do=do, where=why.where)


def _places(on: AskedCards, cards: Sequence[Card]) -> str:
    """The devices that cards of these kinds are, as docker is told them: "0,2"."""
    devices = on.devices or [str(at) for at in range(on.count)]
    return ",".join(device for device, card in zip(devices, on.cards, strict=True) if card in cards)


def find_variant(variants: Variants, name: str) -> Variant:
    """The variant of this id, also with "-whole" behind it. Raises NothingSelected with the nearest."""
    found = variants.named(name)
    if found is None:
        raise NothingSelected(
            f"there is no variant {name}",
            do=f"nearest id: {closest(name, variants.valid)}. All ids: ./inv plan --all",
        )
    return found


def _with_nearest(error: NoImageFits, ask: Ask, variants: Sequence[Variant], config: str) -> NoImageFits:
    other = find_other_image(ask, variants)
    others = [fit_line(one, config) for one in ((other,) if other else find_alternatives(ask))]
    if not others:
        return error
    do = f"{error.do}; what fits: {' or '.join(others)}"
    return NoImageFits(error.what, cause=error.cause, do=do, where=error.where)
