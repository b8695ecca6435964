"""An image of any builder in a registry: which of an index's platforms it is, and what layers it has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from images.core import Unsafe, UsageError
from images.registry.client import Repository
from images.registry.descriptor import DIGEST, Blob, Manifest, parse_blobs
from images.registry.oci_image import CONFIG, read_blob

DEFAULT_PLATFORM = "linux/amd64"
_CONFIGS = (CONFIG, "application/vnd.docker.container.image.v1+json")
_CONFIG_MAX = 4 << 20
_MOST_PLATFORMS = 1000
_SHOWN = 12
_WORD = r"[A-Za-z0-9._-]{1,64}"
_PLATFORM = re.compile(rf"({_WORD})/({_WORD})(?:/({_WORD}))?")


@dataclass(frozen=True)
class FoundImage:
    """One image: the digest of its manifest, its ``platform`` ("linux/amd64"), its layers, the lowest first.

    ``platforms`` are those of the index it was chosen from; none where it stands alone.
    """

    digest: str
    platform: str
    layers: tuple[Blob, ...]
    platforms: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its layers, as they are packed."""
        return sum(layer.size for layer in self.layers)


def find_image(repository: Repository, reference: str, platform: str = "") -> FoundImage | None:
    """The image that a tag or digest names, for ``platform`` (empty: linux/amd64); None where there is none.

    Raises UsageError where it is not for that platform, or no image, Unsafe for a manifest that lies.
    """
    if platform and not _PLATFORM.fullmatch(platform):
        raise UsageError(f"{platform!r} is no platform", do="write it as linux/amd64, or linux/arm64/v8")
    found = repository.manifest(reference)
    if found is None:
        return None
    where = f"{repository.name}@{found.digest}"
    if "manifests" not in found.content:
        return _image(repository, found, where, platform, ())
    listed = _listed(found.content, where)
    names = tuple(dict.fromkeys(name for name, _ in listed))
    wanted = platform or DEFAULT_PLATFORM
    digest = next((digest for name, digest in listed if _matches(name, wanted)), None)
    if digest is None:
        raise _other_platform(where, wanted, names)
    one = repository.manifest(digest)
    if one is None or "manifests" in one.content:
        what = "an index again" if one else "nothing that the registry has"
        raise _lies(where, f"its index names {what} for {wanted}")
    return _image(repository, one, f"{repository.name}@{digest}", wanted, names)


def _listed(content: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """Platform and digest of each image of an index; attestations, which are for no platform, are none."""
    rows = content["manifests"]
    if not isinstance(rows, list) or len(rows) > _MOST_PLATFORMS:
        raise _lies(where, "its index has no sensible list of manifests")
    listed = []
    for row in rows:
        said = row.get("platform") if isinstance(row, dict) else None
        if not isinstance(said, dict) or not DIGEST.fullmatch(str(row.get("digest"))):
            continue
        name = "/".join(str(said[key]) for key in ("os", "architecture", "variant") if said.get(key))
        if _PLATFORM.fullmatch(name) and "unknown" not in name.split("/"):
            listed.append((name, str(row["digest"])))
    return listed


def _matches(name: str, wanted: str) -> bool:
    """Whether an image's platform is the wanted one, which need not name a variant."""
    return name == wanted or name.startswith(f"{wanted}/")


def _image(
    repository: Repository, found: Manifest, where: str, platform: str, platforms: tuple[str, ...]
) -> FoundImage:
    try:
        config, *layers = parse_blobs(found.content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if found.content.get("schemaVersion") == 1:
            cause = "its manifest is of schema 1, which registries and engines have given up"
            raise UsageError(f"{where} cannot be read", cause=cause, do="push it again with a newer engine") from error
        raise _lies(where, f"its manifest has no sensible {error}") from error
    if config.media_type not in _CONFIGS:
        raise UsageError(
            f"{where} is no image",
            cause=f"it is an artifact of the kind {config.media_type[:100]!r}",
            do="name an image",
        )
    name = _own_platform(read_blob(repository, config, _CONFIG_MAX), where)
    if platform and not platforms and not _matches(name, platform):
        raise _other_platform(where, platform, (name,))
    return FoundImage(found.digest, name, tuple(layers), platforms)


def _own_platform(raw: bytes, where: str) -> str:
    """What an image's configuration says that it is for."""
    try:
        said = json.loads(raw)
        name = "/".join(said[key] for key in ("os", "architecture", "variant") if said.get(key))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise _lies(where, "its configuration names no platform") from error
    if not _PLATFORM.fullmatch(name):
        raise _lies(where, "its configuration names no platform")
    return name


def _other_platform(where: str, wanted: str, names: tuple[str, ...]) -> UsageError:
    have = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return UsageError(
        f"{where} has no image for {wanted}",
        cause=f"it has: {have or 'none that says what it is for'}",
        do="choose one of those: --platform OS/ARCHITECTURE",
    )


def _lies(where: str, cause: str) -> Unsafe:
    return Unsafe(f"{where} is not what an image is", cause=cause, do="do not use it; tell whoever publishes it")
