"""Pulling: from this machine's cards, or named ones, to the published image: verified, pulled by digest, tagged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from images.catalogue import Catalogue, PublishedImage, SigningKeys, check_image, fetch_catalogue
from images.core import CardstockError, NothingSelected, RegistryFailure, Unsafe
from images.distribution.pull_layers import Started, check_disk_space, fetch
from images.docker import DiskFull, RateLimited, refuse_old_engine
from images.registry import Repository

if TYPE_CHECKING:
    from images.docker import Engine

# The engine tries a layer again by itself; this is for what it gives up on at once: the manifest, a registry starting.
ATTEMPTS = 5
Say = Callable[[str], None]


def read(repository: Repository, keys: SigningKeys | None) -> Catalogue:
    """The catalogue of a repository, verified if there is a key. Raises NothingSelected where nothing is published."""
    catalogue, _ = fetch_catalogue(repository, keys)
    if catalogue is None:
        raise NothingSelected(
            f"nothing is published in {repository.name}",
            cause="it has no catalogue",
            do="see that its name is right; ./inv publish fills it",
        )
    return catalogue


def verify(repository: Repository, image: PublishedImage, keys: SigningKeys | None) -> None:
    """All that can be known before a layer is pulled: signature, digest, configuration, layers, labels, its tag.

    Raises Unsafe for what is not as the catalogue says, RegistryFailure where the registry does not answer.
    """
    if keys is not None and keys.signer is not None:
        keys.cosign.verify(repository.name, image.digest, keys.signer)
    check_image(repository, image)


def pull(
    engine: Engine,
    repository: Repository,
    image: PublishedImage,
    tags: Sequence[str],
    say: Say = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    home: Path | None = None,
) -> str:
    """Have the engine fetch a verified image by its digest, see that it is the one, and name it; its full reference.

    With ``home``, a folder, one run pulls it and others wait, and what the engine's own pull could not finish, in this
    run or an earlier one, goes on layer by layer (images/distribution/pull_layers.py). Raises RegistryFailure where the
    registry stays broken, CardstockError where a disk is too small or full, Unsafe where the registry gives something
    else; then nothing is named.
    """
    started = Started(home, image.digest) if home else None
    if started is None:
        reference = f"{repository.name}@{image.digest}"
        _pull_whole(engine, reference, say, sleep)
        return _named(engine, repository, image, reference, tags)
    with started.alone(image.variant, say):
        reference = _bring(engine, repository, image, started, say)
        _named(engine, repository, image, reference, tags)
        started.end()
    return reference


def refuse_old(engine: Engine, image: PublishedImage) -> None:
    """Raise EngineUnreachable where the engine is too old for the image's packing, before a byte moves."""
    refuse_old_engine(image.variant, image.packing, engine.docker_version)


def _named(engine: Engine, repository: Repository, image: PublishedImage, reference: str, tags: Sequence[str]) -> str:
    """See that the engine has this image, and name it."""
    facts = engine.inspect(reference)
    # An image's id is its configuration's digest; for an engine with the containerd store, its manifest's.
    if facts is None or facts.id not in (image.config, image.digest):
        raise Unsafe(
            f"{repository.name}@{image.digest}: the engine has another image by this name",
            cause=f"its id is {facts.id if facts else 'nothing'}, it should be {image.config}",
            do="remove it (docker rmi) and pull again",
        )
    for tag in tags:
        engine.tag(reference, tag)
    return reference


def _bring(engine: Engine, repository: Repository, image: PublishedImage, started: Started, say: Say) -> str:
    """Have the engine pull it, or what is left of a pull that broke off go on; what it is called in the engine."""
    layered = started.before
    try:
        check_disk_space(engine, repository, image, started, layered=layered)
    except CardstockError:
        if not layered:
            raise
        check_disk_space(engine, repository, image, started)
        say(f"{image.variant}: too little room to go on layer by layer, so the engine pulls it whole")
        layered = False
    reference = f"{repository.name}@{image.digest}"
    if not layered and _at_once(engine, reference, started, say):
        return reference
    say(f"{image.variant}: the pull that did not end goes on layer by layer")
    return fetch(engine, repository, image, started, say)


def _at_once(engine: Engine, reference: str, started: Started, say: Say) -> bool:
    """Whether the engine pulled it; it tries each layer several times by itself."""
    fresh = not started.before
    started.begin()
    try:
        engine.pull(reference, say)
    except RateLimited:
        raise
    except RegistryFailure as error:
        say(error.cause.splitlines()[0])
        return False
    except (Unsafe, DiskFull):
        if fresh:
            started.end()  # nothing lies there, and to go on layer by layer would take more room
        raise
    return True


def _pull_whole(engine: Engine, reference: str, say: Say, sleep: Callable[[float], None]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return engine.pull(reference, say)
        except RegistryFailure as error:
            if attempt == ATTEMPTS or isinstance(error, RateLimited):
                raise
            wait = 0.5 * 2 ** (attempt - 1)
            say(f"{error.cause.splitlines()[0]}; again in {wait:g} s")
            sleep(wait)
    return None
