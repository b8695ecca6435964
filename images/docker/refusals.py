"""What an engine says when it breaks off, as an error of its kind: full disk, registry, lie, too old an engine."""

from __future__ import annotations

import re

from images.core import CardstockError, EngineUnreachable, RegistryFailure, Unsafe

# What an engine says of bytes that are not those of their digest, or that do not make the image they are said to.
_LIES = re.compile(
    r"verification failed|digest.*(mismatch|not match)|don't match image config|unexpected (size|commit)|invalid diffID"
)
_FULL = re.compile(r"no space left on device|disk quota exceeded|not enough space|ENOSPC", re.IGNORECASE)
_LIMIT = re.compile(r"toomanyrequests|too many requests|rate limit|\b429\b", re.IGNORECASE)
# An engine without zstd takes such a layer for a tar that is not one (moby's pkg/archive before 23.0).
_PACKING = re.compile(
    r"invalid tar header|unsupported (?:media ?type|compression)|media type .* not supported|magic number mismatch|"
    r"unrecognized (?:archive|compression)|unknown compression",
    re.IGNORECASE,
)
# Pulling layers packed by zstd: "Add support for pulling zstd compressed layers", release notes of Docker Engine 23.0.
ZSTD_SINCE = 23


class DiskFull(CardstockError):
    """The disk of the engine has no room for what it was to keep."""


def disk_full(what: str, said: str) -> DiskFull:
    """The error of an engine whose disk is full."""
    return DiskFull(
        what,
        cause=f"the engine's disk is full: {said}",
        do="free some space (./inv engine --prune; docker system df shows what holds it), then run the same again",
    )


def is_disk_full(said: str) -> bool:
    """Whether an engine's words are about its disk."""
    return _FULL.search(said) is not None


def refused_pull(reference: str, said: str) -> CardstockError:
    """The error of a pull or a load that the engine broke off, of its kind."""
    if is_disk_full(said):
        return disk_full(f"{reference} could not be pulled", said)
    if _LIES.search(said):
        return Unsafe(
            f"{reference}: what the registry gives is not what its digest says",
            cause=f"the engine says: {said}",
            do="do not use it; tell whoever runs this registry",
        )
    if _PACKING.search(said):
        return EngineUnreachable(
            f"{reference} could not be pulled: this engine cannot unpack its layers",
            cause=f"the engine says: {said}",
            do=f"use Docker {ZSTD_SINCE}.0 or newer (it unpacks zstd), or an image whose layers are gzip",
        )
    if _LIMIT.search(said):
        return RateLimited(
            f"{reference} could not be pulled: the registry's limit is reached",
            cause=f"the engine says: {said}",
            do="log in (docker login), which many registries give a higher limit, or wait and run the same again",
        )
    return RegistryFailure(
        f"{reference} could not be pulled",
        cause=f"the engine says: {said}",
        do="see that the registry answers and that this login may read it; run the same again to go on",
    )


class RateLimited(RegistryFailure):
    """The registry gives nothing more for a while; to ask again at once makes it worse."""


def refuse_old_engine(what: str, packing: str, version: str) -> None:
    """Raise EngineUnreachable where an engine is known to be too old for layers packed so; before a byte moves."""
    found = re.match(r"(\d+)\.", version)
    if packing == "zstd" and found and int(found[1]) < ZSTD_SINCE:
        raise EngineUnreachable(
            f"{what}: this engine cannot unpack its layers",
            cause=f"they are packed by zstd, which Docker unpacks since {ZSTD_SINCE}.0; this engine is {version}",
            do=f"update the engine to {ZSTD_SINCE}.0 or newer, or name another by DOCKER_HOST; or ask whoever "
            "publishes for layers as gzip",
        )
