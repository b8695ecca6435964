"""What a folder of saved images holds: its index (`saved.json`), and the tar that its pieces are when joined. Pure.

The tar is an OCI image layout with layers as zstd, and has Docker's `manifest.json` beside: `docker load` takes the
joined pieces as they are. All of it but configurations and layers follows from the index, so a reader holds the tar
against the index byte by byte, and parses nothing of it.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from images.core import Unsafe, read_file, refuse_newer
from images.distribution.pieces import LEAST_BYTES, MOST_BYTES, MOST_PIECES, Piece, piece_name, sizes_of_pieces
from images.registry import CONFIG, INDEX, MANIFEST, Blob, digest_of, layer_type, make_manifest

SAVED_FILE, SUMS = "saved.json", "SHA256SUMS"
SCHEMA = 1
CONFIG_MAX = 4 << 20
_INDEX_MAX = 4 << 20  # bytes of saved.json: 9999 pieces have 1.5 million
LAYERS_MAX = 128
_HEADER, _BLOCK = 512, 512
_END = b"\0" * 2 * _BLOCK
# A layer that is not sent is described as it is unpacked: its digest is then its diff id.
UNPACKED = "application/vnd.oci.image.layer.v1.tar"

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# They reach command lines and terminals: no other characters than these.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
Reference = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}(/[a-z0-9][a-z0-9._-]{0,63}){0,3}:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
    ),
]
PlainText = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,2000}$")]
ArchText = Annotated[str, StringConstraints(pattern=r"^\d{1,2}\.\d$")]
Bytes = Annotated[int, Field(ge=0, le=1 << 42)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SavedLayer(Part):
    """A layer: the digest and size of its bytes in the tar, its size ``unpacked``; not ``sent``: the other side has it.

    One that is not sent has its diff id as digest.
    """

    digest: Digest
    size: Bytes
    unpacked: Bytes
    sent: bool


class SavedImage(Part):
    """An image: its variant, its ``id`` (the digest of its configuration), how many bytes that has, its names, its
    archs (none: for the CPU), the evidence that its label tells, and the diff ids of its layers, base first.
    """

    variant: Name
    id: Digest
    configuration: Annotated[int, Field(ge=2, le=CONFIG_MAX)]
    tags: Annotated[tuple[Reference, ...], Field(min_length=1, max_length=4)]
    archs: Annotated[tuple[ArchText, ...], Field(max_length=32)]
    evidence: PlainText
    layers: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=LAYERS_MAX)]


class SavedPiece(Part):
    """A piece, as `pieces.Piece`."""

    name: Name
    size: Annotated[int, Field(ge=1, le=MOST_BYTES)]
    sha256: Hash


class Saved(Part):
    """The whole index: images, their layers by diff id, the pieces of ``split`` bytes each (the last may be less)."""

    schema_: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)] = SCHEMA
    images: Annotated[tuple[SavedImage, ...], Field(min_length=1, max_length=100)]
    layers: Annotated[dict[Digest, SavedLayer], Field(max_length=100 * LAYERS_MAX)]
    split: Annotated[int, Field(ge=LEAST_BYTES, le=MOST_BYTES)]
    pieces: Annotated[tuple[SavedPiece, ...], Field(min_length=1, max_length=MOST_PIECES)]

    @model_validator(mode="after")
    def _is_whole(self) -> Saved:
        if {diff for image in self.images for diff in image.layers} != self.layers.keys():
            raise ValueError("the layers are not those of the images")
        tags = [tag for image in self.images for tag in image.tags]
        if len(set(tags)) != len(tags) or len({image.id for image in self.images}) != len(self.images):
            raise ValueError("an image or a name stands there twice")
        for diff, layer in self.layers.items():
            if not layer.sent and (layer.digest, layer.size) != (diff, layer.unpacked):
                raise ValueError(f"{diff} is not sent, and has another digest or size")
        size = sum(member.room for member in members(self.images, self.layers)) + len(_END)
        if size > self.split * MOST_PIECES or sizes_of_pieces(size, self.split) != tuple(p.size for p in self.pieces):
            raise ValueError("the pieces do not add up to the images")
        if [piece.name for piece in self.pieces] != [piece_name(n) for n in range(1, len(self.pieces) + 1)]:
            raise ValueError("the pieces are not called as pieces are")
        return self

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(piece.size for piece in self.pieces)

    def plain_pieces(self) -> tuple[Piece, ...]:
        """The pieces."""
        return tuple(Piece(piece.name, piece.size, piece.sha256) for piece in self.pieces)

    def to_json(self) -> str:
        """As it is written."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


@dataclass(frozen=True)
class Member:
    """A file of the tar: its name, its size, and its bytes where they follow from the index (None: they are a blob's,
    of this digest).
    """

    name: str
    size: int
    content: bytes | None
    digest: str = ""

    @property
    def header(self) -> bytes:
        """What stands before it: one block, for any size."""
        entry = tarfile.TarInfo(self.name)
        entry.size = self.size
        return entry.tobuf(tarfile.GNU_FORMAT)

    @property
    def padding(self) -> bytes:
        """What stands behind it."""
        return b"\0" * (-self.size % _BLOCK)

    @property
    def room(self) -> int:
        """Bytes that it takes in the tar."""
        return _HEADER + self.size + -self.size % _BLOCK


def blob_name(digest: str) -> str:
    """Where a blob lies in the layout."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def members(images: Sequence[SavedImage], layers: Mapping[str, SavedLayer]) -> list[Member]:
    """The files of the tar in their order: what says what there is, then configurations and manifests, then layers."""
    manifests = {image.id: _manifest(image, layers) for image in images}
    out = [
        _file("oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode()),
        _file("index.json", _index(images, manifests)),
        _file("manifest.json", _docker_manifest(images, layers)),
    ]
    for image in images:
        out.append(Member(blob_name(image.id), image.configuration, None, image.id))
        out.append(_file(blob_name(digest_of(manifests[image.id])), manifests[image.id]))
    sent = dict.fromkeys(layers[diff].digest for image in images for diff in image.layers if layers[diff].sent)
    sizes = {layer.digest: layer.size for layer in layers.values()}
    out += [Member(blob_name(digest), sizes[digest], None, digest) for digest in sent]
    return out


def manifest_digest(image: SavedImage, layers: Mapping[str, SavedLayer]) -> str:
    """The digest of an image's manifest, by which an engine with the containerd store calls it."""
    return digest_of(_manifest(image, layers))


def tar_parts(found: Sequence[Member], blobs: Mapping[str, Path | bytes]) -> Iterator[bytes | Path]:
    """The parts of the tar one after the other; ``blobs`` are the configurations and layers by digest."""
    for member in found:
        yield member.header
        yield blobs[member.digest] if member.content is None else member.content
        yield member.padding
    yield _END


def offsets(found: Sequence[Member]) -> list[int]:
    """Where the bytes of each file begin in the tar."""
    out, at = [], 0
    for member in found:
        out.append(at + _HEADER)
        at += member.room
    return out


def sums(pieces: Sequence[Piece], index: bytes) -> str:
    """The file that `sha256sum -c` reads: the index first, then the pieces."""
    lines = [f"{digest_of(index).removeprefix('sha256:')}  {SAVED_FILE}"]
    lines += [f"{piece.sha256}  {piece.name}" for piece in pieces]
    return "\n".join(lines) + "\n"


def read_saved(folder: Path) -> Saved:
    """The index of a folder. Raises UsageError where there is none or it is of a newer form, Unsafe for a bad one."""
    path = folder / SAVED_FILE
    raw = read_file(
        path, f"name a folder that ./inv save has written, and bring {SAVED_FILE} with the pieces", _INDEX_MAX
    )
    refuse_newer(raw, str(path), SCHEMA)
    try:
        return Saved.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:200]
        raise Unsafe(
            f"{path} cannot be trusted: it is not what ./inv save writes",
            cause=f"{place + ': ' if place else ''}{first['msg']} ({error.error_count()} mistakes)",
            do=f"bring {SAVED_FILE} again; it is damaged, or was written by something else",
        ) from error


def _file(name: str, content: bytes) -> Member:
    return Member(name, len(content), content)


def _manifest(image: SavedImage, layers: Mapping[str, SavedLayer]) -> bytes:
    mine = [layers[diff] for diff in image.layers]
    blobs = [Blob(layer_type("zstd") if one.sent else UNPACKED, one.digest, one.size) for one in mine]
    return make_manifest(Blob(CONFIG, image.id, image.configuration), blobs)


def _index(images: Sequence[SavedImage], manifests: Mapping[str, bytes]) -> bytes:
    listed: list[dict[str, Any]] = []
    for image in images:
        raw = manifests[image.id]
        for tag in image.tags:
            notes = {
                "io.containerd.image.name": f"docker.io/{tag}",
                "org.opencontainers.image.ref.name": tag.rpartition(":")[2],
            }
            listed.append({"mediaType": MANIFEST, "digest": digest_of(raw), "size": len(raw), "annotations": notes})
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()


def _docker_manifest(images: Sequence[SavedImage], layers: Mapping[str, SavedLayer]) -> bytes:
    """Docker's own list: what `docker load` of the classic store goes by."""
    listed = [
        {
            "Config": blob_name(image.id),
            "RepoTags": list(image.tags),
            "Layers": [blob_name(layers[diff].digest) for diff in image.layers],
        }
        for image in images
    ]
    return json.dumps(listed).encode()
