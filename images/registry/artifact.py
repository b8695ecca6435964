"""OCI artifacts: a few files under one manifest, on any registry. What they mean is up to who pushes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.core import Unsafe, UsageError
from images.registry.client import Repository
from images.registry.descriptor import MANIFEST, Blob, Manifest, digest_of, digest_of_file, parse_blobs

TITLE = "org.opencontainers.image.title"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_VERSION = re.compile(r"(.+)\.v([0-9]{1,6})")


@dataclass(frozen=True)
class ArtifactPart:
    """A file of an artifact, by its plain name."""

    path: Path
    media_type: str


@dataclass(frozen=True)
class Artifact:
    """An artifact that a registry has: digest of its manifest, its kind, its notes, and its files by name."""

    digest: str
    kind: str
    notes: Mapping[str, str]
    files: Mapping[str, Blob]


def push(
    repository: Repository,
    tag: str | None,
    kind: str,
    parts: Sequence[ArtifactPart],
    notes: Mapping[str, str],
    subject: Mapping[str, Any] | None = None,
) -> str:
    """Write the files, then the manifest, then read it back; its digest. The tag moves last; None: no tag at all.

    ``kind`` is the media type of the artifact. It stands both in ``artifactType`` and as the configuration's media
    type: registries of before OCI 1.1 know the second only. The first part serves as the configuration. ``subject`` is
    the descriptor of what the artifact is about.
    """
    layers = [_descriptor(part) for part in parts]
    config = {"mediaType": kind} | {name: layers[0][name] for name in ("digest", "size")}
    for part, layer in zip(parts, layers, strict=True):
        repository.upload(part.path, layer["digest"])
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": config,
        "layers": layers,
        **({"subject": dict(subject)} if subject else {}),
        "annotations": dict(sorted(notes.items())),
    }
    raw = json.dumps(content, indent=1).encode()
    tag = tag or digest_of(raw)
    digest = repository.put_manifest(raw, tag)
    written = repository.read_back(tag)
    if written is None or written.digest != digest:
        raise Unsafe(
            f"{repository.name}:{tag} is not what was just written",
            cause=f"wrote {digest}, it names {written.digest if written else 'nothing'}",
            do="see who else writes this tag, then push again",
        )
    return digest


def look(repository: Repository, reference: str, kind: str) -> Artifact | None:
    """The artifact of a tag or digest; None where there is none. Raises Unsafe for one of another kind or form."""
    found = repository.manifest(reference)
    return None if found is None else read_artifact(found, kind, f"{repository.name}:{reference}")


def read_artifact(found: Manifest, kind: str, where: str) -> Artifact:
    """What a manifest says.

    Raises Unsafe for another kind of artifact and for names that are no plain file names, UsageError for a kind that is
    of a newer version.
    """
    try:
        config = found.content["config"]
        said = found.content.get("artifactType") or config["mediaType"]
        _, *files = parse_blobs(found.content)
        notes = {str(key): str(value) for key, value in (found.content.get("annotations") or {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unsafe(f"{where} is no artifact", cause=f"its manifest has no sensible {error}") from error
    if isinstance(said, str) and _is_newer(said, kind):
        raise UsageError(
            f"{where} was written by a newer version of Cardstock",
            cause=f"it is {said}, and this checkout reads {kind}",
            do="use a newer version: git pull",
        )
    named = {dict(blob.notes).get(TITLE, ""): blob for blob in files}
    if said != kind or len(named) != len(files) or not all(_NAME.fullmatch(name) for name in named):
        raise Unsafe(
            f"{where} is not what was looked for",
            cause=f"it is {said!r} with {sorted(named)}, not {kind}",
            do="see who wrote this tag",
        )
    return Artifact(found.digest, kind, notes, named)


def fetch(repository: Repository, artifact: Artifact, folder: Path) -> None:
    """Write all files of an artifact into a folder, each with its digest."""
    for name, blob in artifact.files.items():
        repository.download(blob, folder / name)


def _descriptor(part: ArtifactPart) -> dict[str, Any]:
    size, digest = part.path.stat().st_size, digest_of_file(part.path)
    return {"mediaType": part.media_type, "digest": digest, "size": size, "annotations": {TITLE: part.path.name}}


def _is_newer(said: str, kind: str) -> bool:
    """Whether a media type such as "application/vnd.example.v2" is of the same kind and of a later version."""
    theirs, mine = _VERSION.fullmatch(said), _VERSION.fullmatch(kind)
    return bool(theirs and mine and theirs[1] == mine[1] and int(theirs[2]) > int(mine[2]))
