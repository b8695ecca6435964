"""What a registry holds: blobs and manifests, each named by the digest of its bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.core import sha256_of

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (
    MANIFEST,
    INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SIZE_MAX = 1 << 50  # bytes; no blob has them, and sums of such sizes stay numbers
_PARTS_MAX = 1000  # layers of a manifest; an image has at most 127


@dataclass(frozen=True)
class Blob:
    """A descriptor: what is in a blob, its digest ("sha256:…"), its size in bytes, and notes on it."""

    media_type: str
    digest: str
    size: int
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """A manifest as its registry has it: digest of ``raw``, its media type, and what it says."""

    digest: str
    media_type: str
    raw: bytes
    content: Mapping[str, Any]


def parse_blobs(content: Mapping[str, Any]) -> tuple[Blob, ...]:
    """The configuration and the layers that a manifest names. Raises ValueError, TypeError or KeyError: it lies."""
    layers = content["layers"]
    if not isinstance(layers, list):
        raise TypeError("list of layers")
    if len(layers) > _PARTS_MAX:
        raise ValueError(f"number of layers: {len(layers)}")
    return tuple(_blob(part) for part in (content["config"], *layers))


def _blob(part: Mapping[str, Any]) -> Blob:
    digest, size, kind = part["digest"], part["size"], part["mediaType"]
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ValueError("digest")
    if type(size) is not int or not 0 <= size <= _SIZE_MAX:
        raise ValueError("size")
    notes = part.get("annotations") or {}
    if not isinstance(kind, str) or not isinstance(notes, dict):
        raise TypeError("media type or annotations")
    return Blob(kind, digest, size, tuple((name, str(value)) for name, value in notes.items()))


def digest_of(data: bytes) -> str:
    """ "sha256:…" of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of_file(path: Path) -> str:
    """ "sha256:…" of a file, read in pieces."""
    with path.open("rb") as file:
        return f"sha256:{sha256_of(file)}"
