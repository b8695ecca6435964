"""Images as registries keep them: manifest, configuration, packed layers. What is read has every digest checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from images.core import Unsafe, work_folder
from images.registry.client import Repository
from images.registry.descriptor import MANIFEST, Blob, Manifest, parse_blobs

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+"
_CONFIG_MAX = 4 << 20
BLOB_MAX = 64 << 20  # bytes of what is read at once; a catalogue of a thousand images has four million


@dataclass(frozen=True)
class RemoteImage:
    """An image in a registry: the digests of its manifest and configuration, its packed layers, what it says of itself.

    ``diff_ids`` are the digests of the layers unpacked, in the same order; ``configuration`` is that file.
    """

    digest: str
    config: str
    layers: tuple[Blob, ...]
    diff_ids: tuple[str, ...]
    labels: Mapping[str, str]
    configuration: bytes


def make_manifest(config: Blob, layers: Sequence[Blob]) -> bytes:
    """The manifest of an image; the same parts give the same bytes, so the same digest."""
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(config),
        "layers": [_descriptor(layer) for layer in layers],
    }
    return json.dumps(content, indent=1).encode()


def layer_type(packing: Packing) -> str:
    """Media type of a layer packed so."""
    return LAYER + packing


def _descriptor(blob: Blob) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def read_image(repository: Repository, digest: str) -> RemoteImage | None:
    """The image of a digest; None where the registry has none. Raises Unsafe for what is no image of this form."""
    found = repository.manifest(digest)
    if found is None:
        return None
    where = f"{repository.name}@{found.digest}"
    config, layers = _parts(found, where)
    raw = read_blob(repository, config)
    said = _object(raw, where)
    try:
        diff_ids = tuple(map(str, [*said["rootfs"]["diff_ids"]]))
        labels = {str(name): str(value) for name, value in (said["config"].get("Labels") or {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_image(where, f"its configuration has no sensible {error}") from error
    if len(diff_ids) != len(layers):
        raise _no_image(where, f"{len(layers)} layers, and its configuration names {len(diff_ids)}")
    return RemoteImage(found.digest, config.digest, layers, diff_ids, labels, raw)


def _parts(found: Manifest, where: str) -> tuple[Blob, tuple[Blob, ...]]:
    try:
        config, *layers = parse_blobs(found.content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_image(where, f"its manifest has no sensible {error}") from error
    if config.size > _CONFIG_MAX:
        raise _no_image(where, f"its configuration has {config.size} bytes")
    return config, tuple(layers)


def _object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _no_image(where, f"its configuration is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise _no_image(where, "its configuration is no object")
    return content


def read_blob(repository: Repository, blob: Blob, most: int = BLOB_MAX) -> bytes:
    """The bytes of a small blob, its digest checked. Raises Unsafe for one of more than ``most`` bytes."""
    if blob.size > most:
        raise Unsafe(
            f"{repository.name}: {blob.digest} has {blob.size} bytes, more than {most}",
            cause="that is no file of this kind",
            do="do not use it; tell whoever publishes it",
        )
    with work_folder("blob") as folder:
        path = folder / "blob"
        repository.download(blob, path)
        return path.read_bytes()


def _no_image(where: str, cause: str) -> Unsafe:
    return Unsafe(
        f"{where} is not what an image is",
        cause=cause,
        do="do not use it; tell whoever publishes it",
    )


Packing = Literal["gzip", "zstd"]
