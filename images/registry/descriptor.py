"""What a registry holds: blobs and manifests, each named by the digest of its bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = (
    MANIFEST,
    INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


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


def digest_of(data: bytes) -> str:
    """ "sha256:…" of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of_file(path: Path) -> str:
    """ "sha256:…" of a file, read in pieces."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
