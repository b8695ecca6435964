"""Small images made of layers of one file each, as `docker load` takes them, and what is known of them."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence

from tests.helpers.fake_engine import tar_of


def layer(name: str, size: int) -> bytes:
    """The tar of a layer with one file, which cannot be packed smaller; the same name and size give the same bytes."""
    return tar_of({name: random.Random(name).randbytes(size)})  # noqa: S311 - no secret


def diff_id(content: bytes) -> str:
    """The digest of a layer as it is unpacked."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def configuration(layers: Sequence[bytes], labels: Mapping[str, str]) -> bytes:
    """The configuration of an image of these layers; its digest is the image's id."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": dict(labels), "Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id(one) for one in layers]},
        }
    ).encode()


def archive(layers: Sequence[bytes], labels: Mapping[str, str], *tags: str) -> bytes:
    """An image as `docker save` writes it."""
    config = configuration(layers, labels)
    blobs = {f"blobs/sha256/{hashlib.sha256(one).hexdigest()}": one for one in (config, *layers)}
    names = list(blobs)
    listed = [
        {"Config": names[0], "RepoTags": list(tags), "Layers": [f"blobs/sha256/{diff_id(one)[7:]}" for one in layers]}
    ]
    return tar_of({"manifest.json": json.dumps(listed).encode(), **blobs})


def members_of(tar: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a tar."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for member in opened:
            content = opened.extractfile(member)
            if content is not None:
                yield member.name, content.read()
