"""`invoke fit`: words to an Ask, a Fit to lines or JSON."""

from __future__ import annotations

import json as json_module
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.cards import Card, LocalCard, LocalMachine, all_cards, choose_images, match_card, read_machine
from images.core import NoImageFits, NothingSelected, Report, UsageError, closest
from images.docker import docker_line
from images.matrix import Arch, Driver, Matrix, Variant, Variants, parse_driver
from images.run.fit.alternatives import nearest
from images.run.fit.choose import Ask, Fit, fit
from images.run.fit.fit_table import fit_json, fit_lines
from images.run.fit.model import Model, from_config, named
from images.run.fit.usable_memory import sold_bytes, usable
from images.run.serve import Options, Source, make_spec


@dataclass(frozen=True)
class FitWords:
    """What was typed. ``count`` 0: each card named once, or every card of this machine."""

    model: str
    cards: Sequence[str] = ()
    count: int = 0
    nodes: int = 1
    driver: str = ""
    variant: str = ""
    tp: int = 0
    pp: int = 0


@dataclass(frozen=True)
class _Hardware:
    cards: tuple[Card, ...]
    usable: int
    driver: Driver | None


def fit_command(
    matrix: Matrix,
    variants: Variants,
    words: FitWords,
    locked: Mapping[str, bool],
    json: bool,
    report: Report,
    machine: LocalMachine | None = None,
) -> None:
    """Print how it is served, or raise why it cannot be: NoImageFits with the nearest that can, UsageError for words.

    ``machine`` stands in for this one.
    """
    found = find_fit(matrix, variants, words, locked, report, machine)
    lines = _lines(found, matrix, words.model)
    if json:
        print(json_module.dumps(fit_json(found, lines), indent=1))
        return
    print("\n".join(fit_lines(found)))
    if found.ask.nodes > 1:
        report.next_command(lines[0], "hosts.yaml names the machines")
        return
    report.line(lines[0])
    report.next_command(serve_command(found, words))


def find_fit(
    matrix: Matrix,
    variants: Variants,
    words: FitWords,
    locked: Mapping[str, bool],
    report: Report,
    machine: LocalMachine | None = None,
    model: Model | None = None,
) -> Fit:
    """How it is served; ``model`` where it is known already. Raises as `fit_command` does."""
    hardware = _hardware(words, machine, report)
    variant = _variant(matrix, variants, words, hardware, locked)
    ask = _ask(words, model or read_model(words.model), hardware, variant)
    try:
        return fit(ask)
    except NoImageFits as error:
        raise _with_nearest(error, ask) from error


def _lines(found: Fit, matrix: Matrix, typed: str) -> list[str]:
    """The docker line of the container that `invoke serve` would start; of several machines, what starts them."""
    path = Path(typed).expanduser()
    folder = str((path if path.is_dir() else path.parent).resolve()) if path.exists() else ""
    if found.ask.nodes > 1:
        return [shlex.join(["./inv", "cluster", "--hosts", "hosts.yaml", "--model", typed])]
    repository = found.ask.model.source
    source = Source(Path(folder).name, folder) if folder else Source(repository, repository=repository)
    if not folder and not repository:
        source = Source(found.ask.model.name, f"/path/to/{found.ask.model.name}")
    image = f"{matrix.image}:{found.ask.variant.id}"
    return [docker_line(make_spec(found.ask.variant, image, source, found.ask.model, found, Options()))]


def serve_command(found: Fit, words: FitWords) -> str:
    """What starts it on the machine that it is for."""
    typed = ["./inv", "serve", "--model", words.model]
    typed += [word for card in words.cards for word in ("--card", card)]
    typed += ["--gpus", str(found.ask.count)] if words.count > 1 else []
    return shlex.join([*typed, *(["--variant", words.variant] if words.variant else [])])


def read_model(text: str) -> Model:
    """A name such as 7b-awq, a repository's name, a folder, or a config.json.

    Raises UsageError for an unknown name, a folder without config.json, and a file that is not one.
    """
    if model := named(text):
        return model
    path = Path(text).expanduser()
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        what = f"{path.parent} holds no config.json" if path.name == "config.json" else f"no model is called {text!r}"
        raise UsageError(what, do="3b, 7b, 32b or 72b with -fp16, -bf16, -awq or -gptq; or a model's folder")
    try:
        data = json_module.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON", cause=str(error), do="download the model's config.json anew") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no settings", do="download the model's config.json anew")
    return from_config(data, str(path.parent))


def _hardware(words: FitWords, machine: LocalMachine | None, report: Report) -> _Hardware:
    driver = parse_driver(words.driver) if words.driver else None
    if words.cards:
        found = []
        for name in (part.strip() for text in words.cards for part in text.split(",")):
            match = match_card(name, all_cards())
            report.line(f"{name}: {match.card.name}, compute capability {match.card.arch}, {match.card.memory:g} GB")
            found.append(match.card)
        if any(not card.memory for card in found):
            raise NoImageFits(f"the memory of {found[0].name} is not known", do="say a card of its family with memory")
        return _Hardware(tuple(found), min(usable(sold_bytes(card)) for card in found), driver)
    here = machine or read_machine()
    if not here.cards:
        raise NoImageFits(
            "this machine has no card to fit a model to", cause=here.why, do="name one: --card 'RTX 2080 Ti'"
        )
    report.line(f"this machine: driver {here.driver}, {', '.join(card.name for card in here.cards)}")
    driver = driver or parse_driver(here.driver)
    return _Hardware(here.as_cards(), min(usable(_bytes(card)) for card in here.cards), driver)


def _bytes(card: LocalCard) -> int:
    return max((part.memory for part in card.slices), default=card.memory)


def _variant(
    matrix: Matrix, variants: Variants, words: FitWords, hardware: _Hardware, locked: Mapping[str, bool]
) -> Variant:
    if words.variant:
        return find_variant(variants, words.variant)
    choice = choose_images(matrix, variants, hardware.cards, hardware.driver, locked)
    if choice.refusals:
        raise choice.refusals[0].why
    if len(choice.picks) > 1:
        raise NoImageFits(
            "no image serves these cards together",
            cause="; ".join(f"{pick.cards[0].name}: {pick.variant.id}" for pick in choice.picks),
            do="fit each kind by itself: --card NAME --count N",
        )
    return choice.picks[0].variant


def find_variant(variants: Variants, name: str) -> Variant:
    """The variant of this id. Raises NothingSelected with the nearest."""
    if name not in variants.valid:
        raise NothingSelected(
            f"there is no variant {name}",
            do=f"nearest id: {closest(name, variants.valid)}. All ids: ./inv plan --all",
        )
    return variants.valid[name]


def _ask(words: FitWords, model: Model, hardware: _Hardware, variant: Variant) -> Ask:
    names = list(dict.fromkeys(card.name for card in hardware.cards))
    least: Arch = min(card.arch for card in hardware.cards)
    count = len(hardware.cards)
    if words.count:
        count = words.count if len(names) == 1 else count * words.count
    return Ask(
        model,
        variant,
        " and ".join(names),
        least,
        hardware.usable,
        count,
        words.nodes,
        hardware.driver,
        words.tp,
        words.pp,
    )


def _with_nearest(error: NoImageFits, ask: Ask) -> NoImageFits:
    others = [_typed(other) for other in nearest(ask)]
    if not others:
        return error
    do = f"{error.do}; what fits: {' or '.join(others)}"
    return NoImageFits(error.what, cause=error.cause, do=do, where=error.where)


def _typed(ask: Ask) -> str:
    words = ["./inv", "fit", "--model", ask.model.source if ask.model.shape.name == "model" else ask.model.name]
    words += ["--card", ask.card] + (["--count", str(ask.count)] if ask.count > 1 else [])
    return shlex.join([*words, *(["--nodes", str(ask.nodes)] if ask.nodes > 1 else [])])
