"""Pulling: from this machine's cards, or named ones, to the published image: verified, pulled by digest, tagged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images.cards.data import Card
from images.cards.this_machine import Machine
from images.catalogue.model import Catalogue, Image, shared_bytes
from images.catalogue.resolve import Found, Resolved
from images.catalogue.store import Keys, check_image, fetch_catalogue
from images.core.errors import CardstockError, NoImageFits, NothingSelected, RegistryFailure, Unsafe
from images.core.report import human_bytes
from images.distribution.pull_layers import Started, fetch
from images.matrix.drivers import Driver
from images.registry.client import Repository
from images.run.serve.container_spec import CACHE, CACHE_VOLUME

if TYPE_CHECKING:
    from images.docker.engine import Engine

# The engine tries a layer again by itself; this is for what it gives up on at once: the manifest, a registry starting.
ATTEMPTS = 5
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """The cards to find images for; their driver, None if not known; names and UUIDs of this machine's own cards."""

    cards: tuple[Card, ...]
    driver: Driver | None = None
    uuids: tuple[tuple[str, str], ...] = ()


def of_machine(machine: Machine, driver: Driver | None) -> Asked:
    """What NVML says of this machine. Raises NoImageFits where it has no card."""
    if not machine.cards:
        raise NoImageFits(
            "this machine has no NVIDIA card to find an image for",
            cause=machine.why,
            do='name one: ./inv pull --card "RTX 2080 Ti" --driver 535.104; or the image for the CPU: --name cpu-…',
        )
    return Asked(machine.as_cards(), driver, tuple((card.name, card.uuid) for card in machine.cards))


def read(repository: Repository, keys: Keys | None) -> Catalogue:
    """The catalogue of a repository, verified if there is a key. Raises NothingSelected where nothing is published."""
    catalogue, _ = fetch_catalogue(repository, keys)
    if catalogue is None:
        raise NothingSelected(
            f"nothing is published in {repository.name}",
            cause="it has no catalogue",
            do="see that its name is right; ./inv publish fills it",
        )
    return catalogue


def verify(repository: Repository, image: Image, keys: Keys | None) -> None:
    """All that can be known before a layer is pulled: signature, digest, configuration, layers, labels, its tag.

    Raises Unsafe for what is not as the catalogue says, RegistryFailure where the registry does not answer.
    """
    if keys is not None and keys.signer is not None:
        keys.cosign.verify(repository.name, image.digest, keys.signer)
    check_image(repository, image)


def pull(
    engine: Engine,
    repository: Repository,
    image: Image,
    tags: Sequence[str],
    say: Say = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    home: Path | None = None,
) -> str:
    """Have the engine fetch a verified image by its digest, see that it is the one, and name it; its full reference.

    With ``home``, a folder, what the engine's own pull could not finish, in this run or an earlier one, goes on layer
    by layer (images/distribution/pull_layers.py). Raises RegistryFailure where the registry stays broken, Unsafe where
    it gives something else; then nothing is named.
    """
    reference = f"{repository.name}@{image.digest}"
    started = Started(home, image.digest) if home else None
    if started is None:
        _pull_whole(engine, reference, say, sleep)
    elif started.before or not _at_once(engine, reference, started, say):
        say(f"{image.variant}: the pull that did not end goes on layer by layer")
        reference = fetch(engine, repository, image, started, say)
    facts = engine.inspect(reference)
    # An image's id is its configuration's digest; for an engine with the containerd store, its manifest's.
    if facts is None or facts.id not in (image.config, image.digest):
        raise Unsafe(
            f"{reference}: the engine has another image by this name",
            cause=f"its id is {facts.id if facts else 'nothing'}, it should be {image.config}",
            do="remove it (docker rmi) and pull again",
        )
    for tag in tags:
        engine.tag(reference, tag)
    if started:
        started.end()
    return reference


def _at_once(engine: Engine, reference: str, started: Started, say: Say) -> bool:
    """Whether the engine pulled it; it tries each layer several times by itself."""
    started.begin()
    try:
        engine.pull(reference, say)
    except RegistryFailure as error:
        say(error.cause.splitlines()[0])
        return False
    except Unsafe:
        started.end()
        raise
    return True


def _pull_whole(engine: Engine, reference: str, say: Say, sleep: Callable[[float], None]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return engine.pull(reference, say)
        except RegistryFailure as error:
            if attempt == ATTEMPTS:
                raise
            wait = 0.5 * 2 ** (attempt - 1)
            say(f"{error.cause.splitlines()[0]}; again in {wait:g} s")
            sleep(wait)
    return None


def run_words(image: Image, reference: str, uuids: Sequence[str] = ()) -> list[str]:
    """The command that serves a model with this image: on all cards, or on those with these UUIDs."""
    words = ["docker", "run", "--rm"]
    if image.archs:
        words += ["--gpus", f'"device={",".join(uuids)}"' if uuids else "all"]
    words += ["--shm-size", "4g", "-p", "127.0.0.1:8000:8000"]
    return [*words, "-v", "/path/to/model:/models:ro", "-v", f"{CACHE_VOLUME}:{CACHE}", reference]


def serve_words(image: Image, uuids: Sequence[str] = ()) -> list[str]:
    """What serves a model with a pulled image and the settings that fit the cards; MODEL is to be put in."""
    gpus = ["--gpus", f"device={','.join(uuids)}"] if image.archs and uuids else []
    return ["./inv", "serve", "--variant", image.variant, *gpus, "--model", "MODEL"]


def line(words: Sequence[str]) -> str:
    """A command as it is typed; a word with double quotes keeps them."""
    return " ".join(f"'{word}'" if '"' in word else word for word in words)


def uuids_of(found: Found, asked: Asked, resolved: Resolved) -> list[str]:
    """The cards of this machine that an image is for; none where it is for all of them."""
    if len(resolved.found) == 1 and not resolved.refusals:
        return []
    names = {card.name for card in found.cards}
    return [uuid for name, uuid in asked.uuids if name in names]


def reference_of(repository: str, image: Image) -> str:
    """An image by its digest, in a repository if that is known."""
    return f"{repository}@{image.digest}" if repository else image.digest


def found_json(repository: str, catalogue: Catalogue, found: Found, run: Sequence[str]) -> dict[str, Any]:
    """An image that was found, for scripts."""
    image = found.image
    return {
        "variant": image.variant,
        "reference": reference_of(repository, image),
        "tag": image.tag,
        "cards": [card.name for card in found.cards],
        "notes": list(found.notes),
        "archs": list(image.archs),
        "audited": list(image.audited),
        "min_driver": image.min_driver,
        "compressed": image.compressed,
        "unpacked": image.unpacked,
        "evidence": image.told(),
        "run": list(run),
    }


def told_json(
    repository: str, catalogue: Catalogue, asked: Asked, resolved: Resolved, runs: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """All of an answer, for scripts."""
    return {
        "repository": repository,
        "driver": str(asked.driver) if asked.driver else None,
        "cards": [{"name": c.name, "arch": str(c.arch), "memory_gb": c.memory or None} for c in asked.cards],
        "images": [found_json(repository, catalogue, one, run) for one, run in zip(resolved.found, runs, strict=True)],
        "refused": [{"card": one.card.name, **_error_json(one.why)} for one in resolved.refusals],
        "lost": [{"variant": one.image.variant, "why": one.why} for one in resolved.lost],
    }


def _error_json(error: CardstockError) -> dict[str, Any]:
    return {"what": error.what, "cause": error.cause, "do": error.do, "where": error.where}


def told_lines(repository: str, catalogue: Catalogue, resolved: Resolved) -> list[str]:
    """What was found and why, why the others were not, which cards get nothing."""
    out = []
    for one in resolved.found:
        image = one.image
        cards = ", ".join(dict.fromkeys(card.name for card in one.cards))
        out.append(f"{image.variant}{f' for {cards}' if cards else ''}")
        out.append(f"  {reference_of(repository, image)}")
        also = shared_bytes(catalogue, image, [other.image for other in resolved.found if other is not one])
        shared = f", {human_bytes(also)} of it shared with the other" if also else ""
        out.append(f"  to pull {human_bytes(image.compressed)}, on disk {human_bytes(image.unpacked)}{shared}")
        out.append(f"  audited for {' '.join(image.audited) or 'the CPU'}; driver from {image.min_driver or 'none'}")
        out.append(f"  {image.told()}")
        out += [f"  note: {note}" for note in one.notes]
    if len(resolved.found) > 1:
        out.append("no image published here covers all of these cards: one for each kind of card")
    out += [f"not {one.image.variant}: {one.why}" for one in resolved.lost]
    for refusal in resolved.refusals:
        out += [f"no image: {refusal.why.what}", f"  cause: {refusal.why.cause}", f"  do: {refusal.why.do}"]
    return out
