"""Compiled code for a server that is about to start: its key, where it is looked for, what is said of it.

Whatever is wrong with compiled code is told in a line, and the server starts without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from images.cards import LocalMachine
from images.catalogue import SigningKeys
from images.compiled import (
    CompiledKey,
    CompiledStore,
    Kept,
    Origin,
    default_store,
    fill,
    image_hash,
    kept_environment,
    kept_flags,
    model_hash,
    read_file_into,
    remote,
    signer_text,
)
from images.context import Context
from images.core import CardstockError, NothingSelected, Unsafe, UsageError, human_bytes, read_json, work_folder
from images.docker import ALL_CARDS, NO_CARDS, ContainerSpec, Gpus, ImageFacts
from images.registry import Repository
from images.render import CACHE, MODELS
from images.run.serve.hub import MOST, read_config
from images.run.serve.source import Source

_PROCESSOR = Path("/proc/cpuinfo")
# What a compiler for processors decides by (torch/_inductor/cpu_vec_isa.py); a machine may hide them from its guests.
_WIDE = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


@dataclass(frozen=True)
class Place:
    """Where compiled code may come from, beside this machine's own.

    ``keys`` has who must have signed it; ``unsigned``: the user has said that what nobody signed may be used; ``file``
    is one of `./inv warm --out`, which the user names and so means.
    """

    repository: Repository | None = None
    keys: SigningKeys | None = None
    unsigned: bool = False
    file: str = ""


@dataclass(frozen=True)
class Processor:
    """What a key says of where code runs: a card's compute capability, or "cpu", and its name."""

    capability: str
    name: str


def processor_of(gpus: Gpus, machine: LocalMachine, cpuinfo: Path = _PROCESSOR) -> Processor:
    """The one kind of card that a container is given, or the processor. Raises NothingSelected for several kinds."""
    kinds = processors_of(gpus, machine, cpuinfo)
    if len(kinds) != 1:
        raise NothingSelected("the cards are of several kinds, or none of this machine's")
    return next(iter(kinds))


def processors_of(gpus: Gpus, machine: LocalMachine, cpuinfo: Path = _PROCESSOR) -> frozenset[Processor]:
    """The kinds of cards that a container is given; with none the processor. Raises NothingSelected."""
    if gpus == NO_CARDS:
        return frozenset({_central(cpuinfo)})
    if gpus.devices:
        return frozenset(_card(device, machine) for device in gpus.devices)
    cards = machine.cards if gpus.count < 0 else machine.cards[: gpus.count]
    return frozenset(Processor(str(card.arch), card.name) for card in cards)


def _card(device: str, machine: LocalMachine) -> Processor:
    for at, card in enumerate(machine.cards):
        own = at if card.index is None else card.index
        if device == str(own) or (device.startswith("GPU-") and card.uuid.startswith(device)):
            return Processor(str(card.arch), card.name)
        for one in card.slices:
            if device == one.uuid:
                return Processor(str(card.arch), one.name)
    raise NothingSelected(f"{device} is no card of this machine")


def _central(cpuinfo: Path) -> Processor:
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
    except OSError as error:
        raise NothingSelected(f"the processor is not known: {error}") from error
    said = dict(line.partition(":")[::2] for line in reversed(text.splitlines()) if ":" in line)
    said = {name.strip(): value.strip() for name, value in said.items()}
    has = set((said.get("flags") or said.get("Features") or "").split())
    name = said.get("model name") or said.get("CPU part") or "a processor"
    return Processor("cpu", " ".join([name, *(one for one in _WIDE if one in has)])[:200])


def key_of(spec: ContainerSpec, facts: ImageFacts, on: Processor, config: dict[str, Any]) -> CompiledKey:
    """The key of what the server of a container compiles; ``config`` is the checkpoint's config.json."""
    env = dict(spec.env)
    engine = env.get("CARDSTOCK_ENGINE") or facts.env.get("CARDSTOCK_ENGINE", "")
    return CompiledKey(
        image=image_hash(facts.layers, facts.env),
        capability=on.capability,
        card=on.name if engine == "vllm" else "",
        model=model_hash(config),
        place=_value(spec.arguments, "--model") or MODELS,
        flags=kept_flags(spec.arguments),
        env=kept_environment(env),
    )


def _value(words: Sequence[str], flag: str) -> str:
    return next((value for name, value in pairwise(words) if name == flag), "")


def config_of(context: Context, source: Source, config: str) -> dict[str, Any]:
    """The checkpoint's config.json: of its folder, of the file that was named, or asked of the hub.

    Raises UsageError, RegistryFailure.
    """
    if source.folder or config:
        path = Path(config or source.folder).expanduser()
        data = read_json(path / "config.json" if path.is_dir() else path, most=MOST)
    else:
        data = read_config(source.repository, context.environment, context.ca)
    if not isinstance(data, dict):
        raise UsageError("the model's config.json holds no settings")
    return data


def wanted_key(context: Context, spec: ContainerSpec, source: Source, config: str) -> CompiledKey:
    """The key of what the server of a container would compile here. Raises CardstockError where that is not known."""
    engine = context.engine
    facts = engine.inspect(spec.image)
    if facts is None:
        raise NothingSelected(f"{spec.image} is not here")
    if not engine.local:
        raise NothingSelected(f"the engine runs on another machine ({engine.endpoint}), whose cards are not known")
    return key_of(spec, facts, processor_of(spec.gpus, context.machine), config_of(context, source, config))


def bring(
    context: Context, spec: ContainerSpec, source: Source, config: str, place: Place, store: CompiledStore | None = None
) -> bool:
    """Put compiled code into the cache that a server is about to use, if there is some for it; whether it is in there.

    Nothing is asked of anybody where no place is named and this machine has none of this image. What is wrong is said.
    """
    store = store or default_store()
    say = context.report.line
    if place.repository is None and not place.file and not store.root.is_dir():
        return False
    try:
        facts = context.engine.inspect(spec.image)
        image = image_hash(facts.layers, facts.env) if facts is not None else ""
        mine = [one for one in store.entries() if one.record.key.image == image]
        if place.repository is None and not place.file and not mine:
            return False
        key = wanted_key(context, spec, source, config)
    except CardstockError as error:
        say(f"compiled code was not looked for: {error.what}{f': {error.cause}' if error.cause else ''}")
        return False
    try:
        with work_folder("artifact") as folder:
            kept = _found(context, key, place, store, CompiledStore(folder))
            return kept is not None and _filled(context, spec, kept)
    except CardstockError as error:
        told = f"{error.what}{f': {error.cause}' if error.cause else ''}"
        say(f"{told}; the server starts without compiled code", "yellow" if isinstance(error, Unsafe) else "")
    except OSError as error:  # a disk that is full, a state folder that cannot be written
        say(f"compiled code could not be kept below {store.root}: {error}; the server starts without compiled code")
    return False


def bring_all(
    context: Context,
    repository: Repository,
    image: str,
    on_cards: bool,
    place: Place,
    store: CompiledStore | None = None,
) -> list[Kept]:
    """Take what a repository has compiled of an image (by its name here) for this machine into the store.

    What is refused, or cannot be had, is said.
    """
    say = context.report.line
    gpus = ALL_CARDS if on_cards else NO_CARDS
    try:
        here = processors_of(gpus, context.machine)
        facts = context.engine.inspect(image)
        if facts is None:
            raise NothingSelected(f"{image} is not here")
        return remote.fetch_all(
            repository,
            image_hash(facts.layers, facts.env),
            store or default_store(),
            place.keys,
            lambda key: any(key.capability == one.capability and key.card in ("", one.name) for one in here),
            say,
            unsigned=place.unsigned,
        )
    except CardstockError as error:
        say(f"{error.what}{f': {error.cause}' if error.cause else ''}{f'; {error.do}' if error.do else ''}")
    except OSError as error:
        say(f"compiled code could not be kept: {error}")
    return []


def _filled(context: Context, spec: ContainerSpec, kept: Kept) -> bool:
    cache = next(mount.source for mount in spec.mounts if mount.target == CACHE)
    done = fill(context.engine, spec.image, cache, kept)
    record = kept.record
    what = f"compiled code for {record.key.card or record.key.capability} ({kept.origin.text()})"
    if done.there:
        context.report.line(f"{what}: in {cache} already")
    else:
        more = f", {done.kept} parts were there" if done.kept else ""
        context.report.line(f"{what}: {done.files} files, {human_bytes(record.unpacked)}, put into {cache}{more}")
    return True


def _found(
    context: Context, key: CompiledKey, place: Place, store: CompiledStore, passing: CompiledStore
) -> Kept | None:
    """What fits: from the file that was named, from this machine, from the repository. What does not fit is said.

    Raises Unsafe for what is refused, RegistryFailure.
    """
    say = context.report.line
    if place.file:
        return _of_file(Path(place.file).expanduser(), key, passing, say)
    kept = store.get(key, say)
    if kept is not None and _may_be_used(kept.origin, place):
        return kept
    if place.repository is not None:
        try:
            kept = remote.fetch(place.repository, key, store, place.keys, unsigned=place.unsigned)
        except remote.NotTrusted as error:
            say(f"{error.what}: {error.cause}; {error.do}")
            return None
        if kept is not None:
            return kept
        others = remote.nearest(place.repository, key)
        where = place.repository.name
    else:
        mine = [one.record.key for one in store.entries() if one.record.key.image == key.image]
        others = min(filter(None, map(key.differences, mine)), key=len, default=[])
        where = "this machine"
    if others:
        say(f"compiled code of {where} does not fit and is not used: {'; '.join(others)}")
    elif place.repository is not None:
        say(f"{where} has no compiled code of this image")
    return None


def _may_be_used(origin: Origin, place: Place) -> bool:
    """Made here, or signed by whoever must have signed it; or the user has said that it need not be."""
    if not origin.source or place.unsigned:
        return True
    signer = place.keys.signer if place.keys is not None else None
    return origin.trusted and (signer is None or origin.signer == signer_text(signer))


def _of_file(file: Path, key: CompiledKey, passing: CompiledStore, say: remote.Say) -> Kept | None:
    """What `./inv warm --out` wrote, if it fits; the user has named it, so no signature is asked for."""
    with passing.work() as folder:
        record = read_file_into(file, folder)
        if different := key.differences(record.key):
            say(f"the compiled code in {file} does not fit and is not used: {'; '.join(different)}")
            return None
        return passing.put(key, folder, Origin(str(file)))
