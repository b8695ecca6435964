"""Pulling: from this machine's cards, or named ones, to the published image: verified, pulled by digest, tagged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from images.catalogue import Catalogue, PublishedImage, SigningKeys, check_image, fetch_catalogue
from images.core import NothingSelected, RegistryFailure, Unsafe
from images.distribution.pull_layers import Started, fetch
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
