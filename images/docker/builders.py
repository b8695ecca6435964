"""Builders of buildx beside the engine: found by name, asked, handed what only the engine has; why they broke.

A builder of the driver docker-container, remote or kubernetes has a store of its own. What it builds goes to a registry
by digest, and comes to the engine from there; a base that only the engine has goes to it with the build.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.core import (
    CardstockError,
    Chunks,
    EngineUnreachable,
    RegistryFailure,
    Unsafe,
    UsageError,
    process,
    read_json,
)
from images.docker.engine import Engine

# An engine's own builder: it keeps what it builds in the engine, pushes no digest and exports no cache.
ENGINES_OWN = "docker"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,100}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LAYOUT = re.compile(r"blobs/sha256/[0-9a-f]{64}|index\.json|oci-layout")
# A builder in a container or a cluster starts with the first question; its image may have to be pulled first.
START_SECONDS = 300.0
# What BuildKit says, in the order in which it is asked about.
_CACHE = re.compile(
    r"error writing (?:layer blob|manifest blob|config)|failed to (?:export|write) cache|exporting cache"
)
_PUSH = re.compile(r"failed to push|push access denied")
_FETCH = re.compile(r"failed to resolve source metadata for (\S+?):? |failed to load cache key")
_DENIED = re.compile(
    r"401 Unauthorized|403 Forbidden|access denied|insufficient_scope|denied:|no basic auth credentials|authorization"
)
_LOST = re.compile(
    r"listing workers|error reading from server|transport is closing|connection error: desc|code = Unavailable|"
    r"failed to receive status|context deadline exceeded|no such container|waiting for connection"
)


@dataclass(frozen=True)
class Builder:
    """A builder that answers: its name, its driver ("remote"), and what leads buildx to it."""

    name: str
    driver: str
    environment: Mapping[str, str]


def find_builder(name: str, engine: Engine) -> Builder:
    """The builder of this name, started if need be.

    Raises UsageError where there is none, or where it is an engine's own; EngineUnreachable where it does not answer.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--builder {name!r} is no builder's name", do="docker buildx ls names those that there are")
    environment = {**engine.cli_env(), **_own_settings(os.environ)}
    try:
        told = process.run(["docker", "buildx", "inspect", name], env=environment, timeout=60)
    except process.ProcessFailed as error:
        raise _not_there(name, error) from error
    driver = driver_of(told.out)
    if driver == ENGINES_OWN:
        raise UsageError(
            f"--builder {name}: it is an engine's own builder",
            cause="that keeps what it builds in its engine, and pushes neither by digest nor its cache",
            do=f"leave --builder out (DOCKER_HOST and docker's contexts say which engine builds), or {_MAKE}",
        )
    try:
        process.run(["docker", "buildx", "inspect", name, "--bootstrap"], env=environment, timeout=START_SECONDS)
    except process.ProcessFailed as error:
        raise EngineUnreachable(
            f"the builder {name} (driver {driver}) does not answer",
            cause=last_words(error.tail),
            do=f"see what docker buildx inspect {name} --bootstrap says: "
            + ("that its address is right and BuildKit listens there" if driver == "remote" else "that it can start"),
        ) from error
    return Builder(name, driver, environment)


_MAKE = "docker buildx create --name NAME --driver docker-container (or remote tcp://HOST:PORT, or kubernetes)"


def _own_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The user's own list of builders, also where the CLI is one that Cardstock brought; nothing of the build told on.

    Without the last, buildx describes a build in the registry: its arguments, its sources, its git remote.
    """
    config = environment.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    return {
        "BUILDX_CONFIG": environment.get("BUILDX_CONFIG") or f"{config}/buildx",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    }


def _not_there(name: str, error: process.ProcessFailed) -> CardstockError:
    words = last_words(error.tail)
    if re.search(r"no builder .* found", words):
        return UsageError(
            f"there is no builder {name}", cause=words, do=f"docker buildx ls names those that there are; or {_MAKE}"
        )
    return EngineUnreachable(
        f"the builder {name} cannot be asked", cause=words, do=f"see what docker buildx inspect {name} says"
    )


def driver_of(told: str) -> str:
    """The driver in what `docker buildx inspect` prints; "" where it names none."""
    found = re.search(r"^Driver:\s+(\S+)", told, re.MULTILINE)
    return found[1] if found else ""


def last_words(tail: str) -> str:
    """The last thing that buildx said: its error."""
    lines = [line for line in tail.splitlines() if line.strip() and not re.fullmatch(r"[-> ]+", line)]
    errors = [line for line in lines if re.search(r"error", line, re.IGNORECASE)]
    return (errors or lines or ["it said nothing"])[-1].strip()[:600]


def explained(builder: Builder, error: CardstockError, repository: str, cache: str = "") -> CardstockError:
    """The error of a build at a builder: as it is, or of what it is really about (its registry, its cache, itself)."""
    said = error.cause
    # A cache's name may begin as the repository's does; its tags are its own (images/render/bakefile.py).
    about_cache = bool(cache) and (_CACHE.search(said) is not None or f"{cache}:cache-" in said)
    if about_cache or _PUSH.search(said):
        where = cache if about_cache else repository
        host = where.partition("/")[0]
        return RegistryFailure(
            f"the builder {builder.name} could not push to {where}",
            cause=said,
            do=f"docker login {host}, where you type this: the login goes with the build; it must be allowed to push"
            if _DENIED.search(said)
            else f"see that {where} is reached from the machine where {builder.name} runs: localhost is that machine",
            where=error.where,
        )
    if found := _FETCH.search(said):
        return RegistryFailure(
            f"the builder {builder.name} could not fetch {found[1] or 'an image'}",
            cause=said,
            do=f"see that its registry is reached from the machine where {builder.name} runs; "
            "`bases: packages` in site.yaml takes the base from Debian's packages here instead",
            where=error.where,
        )
    if _LOST.search(said):
        return EngineUnreachable(
            f"the builder {builder.name} went away during the build",
            cause=said,
            do=f"see that it runs (docker buildx inspect {builder.name} --bootstrap), then run the same again",
            where=error.where,
        )
    return error


def carried(contexts: Sequence[tuple[str, str]], engine: Engine, folder: Path) -> tuple[tuple[str, str], ...]:
    """Named contexts for a builder: images that only the engine has become OCI layouts below ``folder``.

    Those with a digest come from their registry, as they do to the engine. Raises Unsafe for what is no layout,
    EngineUnreachable for an engine that writes none.
    """
    scheme = "docker-image://"
    return tuple(
        (name, _layout(place.removeprefix(scheme), engine, folder / name))
        if place.startswith(scheme) and "@sha256:" not in place
        else (name, place)
        for name, place in contexts
    )


def _layout(reference: str, engine: Engine, folder: Path) -> str:
    folder.mkdir(parents=True)
    with engine.save(reference) as chunks, tarfile.open(fileobj=Chunks(chunks), mode="r|") as tar:
        for member in tar:
            if member.isreg() and _LAYOUT.fullmatch(member.name):
                place = folder / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None  # noqa: S101  (a regular file)
                with place.open("wb") as out:
                    while chunk := source.read(1 << 20):
                        out.write(chunk)
    if not (folder / "index.json").is_file():
        raise EngineUnreachable(
            f"{reference} cannot be handed to a builder",
            cause="this engine saves images in a form that builders do not read (OCI layouts: since Docker 25)",
            do="use Docker 25 or newer, or a base image of a registry (matrix.yaml: bases, with a digest)",
        )
    try:
        (first, *others) = read_json(folder / "index.json", "use another engine")["manifests"]
        digest = str(first["digest"])
    except (KeyError, TypeError, ValueError) as error:
        raise _no_layout(reference) from error
    if others or not _DIGEST.fullmatch(digest):
        raise _no_layout(reference)
    return f"oci-layout://{folder}@{digest}"


def _no_layout(reference: str) -> Unsafe:
    return Unsafe(
        f"{reference}: what the engine saves is no image's layout", do="see docker save, or use another engine"
    )


def pushed_digests(metadata: Path, targets: Sequence[str]) -> dict[str, str]:
    """Target -> digest of the manifest that was pushed, of what bake left. Raises CardstockError for one without."""
    said: Any = read_json(metadata, "run the same again")
    out: dict[str, str] = {}
    for target in targets:
        digest = str((said.get(target) or {}).get("containerimage.digest", "")) if isinstance(said, dict) else ""
        if not _DIGEST.fullmatch(digest):
            raise CardstockError(
                f"the builder did not say what it pushed for {target}",
                cause=json.dumps(said)[:300],
                do="update buildx (0.13 does), then run the same again",
            )
        out[target] = digest
    return out
