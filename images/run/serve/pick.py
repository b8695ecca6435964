"""What `invoke serve` starts: the image that was named or fits the cards, with the settings of fit and the words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from images.cards import LocalMachine, read_machine
from images.core import NoImageFits, NothingSelected, Report, UsageError
from images.docker import NO_CARDS, ContainerSpec, Gpus, read_gpus
from images.matrix import Arch, Matrix, Variant, Variants
from images.render import PORT, VARIANT
from images.run.fit import Fit, FitWords, Model, find_fit, find_variant, unverified
from images.run.serve.make import CACHE_VOLUME, SERVED, Options, check_memory, make_spec
from images.run.serve.source import Source

if TYPE_CHECKING:
    from images.docker import Engine

# A first start fetches weights and compiles; the image's own health check gives up after 15 minutes and 6 tries.
WAIT = 1800


@dataclass(frozen=True)
class ServeWords:
    """What was typed. ``variant`` and ``image`` "": what fits the card; ``gpus`` "": all that the fit is for."""

    model: str = ""
    cards: Sequence[str] = ()
    variant: str = ""
    image: str = ""
    gpus: str = ""
    name: str = "cardstock"
    host: str = "127.0.0.1"
    port: int = PORT
    restart: str = "unless-stopped"
    served: str = ""
    cache: str = CACHE_VOLUME
    flags: Sequence[str] = ()
    env: Sequence[str] = ()
    driver: str = ""
    wait: int = WAIT
    from_modelscope: bool = False
    detach: bool = False
    print: bool = False
    compose: bool = False


@dataclass(frozen=True)
class Shop:
    """What there is to choose from: the matrix, its variants, which locks are there; ``ca`` is the site's bundle."""

    matrix: Matrix
    variants: Variants
    locked: Mapping[str, bool]
    ca: Path | None = None


def plan(
    shop: Shop,
    words: ServeWords,
    source: Source,
    model: Model,
    report: Report,
    machine: LocalMachine | None,
    engine: Engine | None,
) -> ContainerSpec:
    """The container. Without ``engine`` it is not asked what an image named by ``--image`` is for."""
    variant, image = _image(shop, words, engine)
    gpus = read_gpus(words.gpus) if words.gpus else None
    found: Fit | None = None
    if variant is None or variant.archs:
        found = _fit(shop, words, model, variant, gpus, report, machine)
        variant = found.ask.variant
        for what in unverified(found):
            report.line(f"unverified: {what}")
    how = Options(
        name=words.name,
        host=words.host,
        port=words.port,
        gpus=gpus,
        restart=words.restart,
        served=words.served,
        cache=words.cache,
        flags=words.flags,
        environment=os.environ,
    )
    spec = make_spec(variant, image or f"{shop.matrix.image}:{variant.id}", source, model, found, how)
    return replace(spec, env=tuple({**dict(spec.env), **_environment(words.env)}.items()))


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if not pair.partition("=")[1]:
            raise UsageError(f"--env {pair!r} has no '='", do="--env NAME=VALUE")
    return dict(pair.partition("=")[::2] for pair in pairs)


def _image(shop: Shop, words: ServeWords, engine: Engine | None) -> tuple[Variant | None, str]:
    """The variant and the image that were named; None for what fits the card."""
    if words.variant and words.image:
        raise UsageError("--variant and --image exclude each other", do="name one")
    if words.variant:
        return find_variant(shop.variants, words.variant), ""
    if not words.image:
        return None, ""
    # An image of a registry says by its tag what it is; one that is here, by its label.
    facts = engine.inspect(words.image) if engine else None
    told = facts.labels.get(VARIANT, "") if facts else words.image.partition("@")[0].rpartition(":")[2]
    if told not in shop.variants.valid:
        raise UsageError(
            f"{words.image} is no image of this matrix" if facts or not engine else f"{words.image} is not here",
            do=f"docker pull {words.image}"
            if engine and not facts
            else "name one whose tag is a variant's id, or --variant",
        )
    return shop.variants.valid[told], words.image


def _fit(
    shop: Shop,
    words: ServeWords,
    model: Model,
    variant: Variant | None,
    gpus: Gpus | None,
    report: Report,
    machine: LocalMachine | None,
) -> Fit:
    count = gpus.count if gpus and gpus.count > 0 and words.cards else 0
    asked = FitWords(words.model, words.cards, count=count, driver=words.driver, variant=variant.id if variant else "")
    here = narrowed(machine or (LocalMachine() if words.cards else read_machine()), gpus)
    if not words.cards and not here.cards and variant is None:
        cpu = next(v.id for v in shop.variants.valid.values() if not v.archs)
        raise NoImageFits(
            "this machine has no card to serve on",
            cause=here.why,
            do=f"--variant {cpu} serves on the CPU; --card NAME --print says how it is done on another machine",
        )
    return find_fit(shop.matrix, shop.variants, asked, shop.locked, report, here, model)


def narrowed(machine: LocalMachine, gpus: Gpus | None) -> LocalMachine:
    """The machine with the cards of ``--gpus`` alone. Raises UsageError for a card that it has not."""
    if gpus is None or not machine.cards or (gpus.count < 0 and not gpus.devices):
        return machine
    if gpus.count:
        if gpus.count > len(machine.cards):
            raise UsageError(f"--gpus {gpus.count}: this machine has {len(machine.cards)} card(s)", do="--gpus all")
        return replace(machine, cards=machine.cards[: gpus.count])
    chosen = []
    for device in gpus.devices:
        at = int(device) if device.isdigit() else -1
        match = [card for index, card in enumerate(machine.cards) if index == at or card.uuid == device]
        if not match:
            told = ", ".join(f"{index}: {card.name}" for index, card in enumerate(machine.cards))
            raise UsageError(f"--gpus: this machine has no card {device}", do=f"its cards are {told}")
        chosen += match
    return replace(machine, cards=tuple(chosen))


def check_here(shop: Shop, engine: Engine, spec: ContainerSpec, source: Source, model: Model) -> None:
    """Raises NothingSelected where the image is not on the engine, UsageError or NoImageFits for what it cannot do."""
    if engine.inspect(spec.image) is None:
        identifier = dict(spec.labels)[SERVED]
        others = _others(shop, engine, shop.variants.valid[identifier])
        also = f"; or one that is here: --variant {others[0]}" if others else ""
        raise NothingSelected(
            f"{spec.image} is not here",
            do=f"./inv build --only '{identifier}', or ./inv pull --from REPO --name {identifier}{also}",
        )
    if source.folder and not engine.endpoint.startswith(("unix://", "npipe://")):
        raise UsageError(
            f"the engine runs on another machine ({engine.endpoint}), and {source.folder} is on this one",
            do="--model OWNER/NAME, or type this on that machine",
        )
    if spec.gpus == NO_CARDS:
        check_memory(model, engine.host().memory)


def _others(shop: Shop, engine: Engine, wanted: Variant) -> list[str]:
    """Variants whose images are here and run the wanted one's cards."""
    tags = {tag.rpartition(":")[2] for facts in engine.images(VARIANT) for tag in facts.tags}
    return [one.id for one in shop.variants.valid.values() if one.id in tags and _covers(one.archs, wanted.archs)]


def _covers(archs: Sequence[Arch], cards: Sequence[Arch]) -> bool:
    return bool(cards) and all(any(own.runs_on(card) for own in archs) for card in cards)
