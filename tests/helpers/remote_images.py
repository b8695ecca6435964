"""Small images with layers of our own, packed in every way that a registry may have them."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from images.proof.audit.remote.packing import zstd
from tests.helpers.elf_files import Code, container, library, sm
from tests.helpers.registries import FakeRegistry

_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class To:
    """A link to ``target``; a symbolic one, or ``hard``."""

    target: str
    hard: bool = False


class Folder:
    """A folder."""


Files = Mapping[str, bytes | To | type[Folder]]


def tar_layer(files: Files) -> bytes:
    """A tar of these members, in their order."""
    blocks = [_header(name, content) + _padded(content) for name, content in files.items()]
    return b"".join(blocks) + bytes(1024)


def _header(name: str, content: object) -> bytes:
    entry = tarfile.TarInfo(name)
    if isinstance(content, To):
        entry.type = tarfile.LNKTYPE if content.hard else tarfile.SYMTYPE
        entry.linkname = content.target
    elif isinstance(content, bytes):
        entry.size = len(content)
    else:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry.tobuf(tarfile.GNU_FORMAT)


def _padded(content: object) -> bytes:
    return content + bytes(-len(content) % 512) if isinstance(content, bytes) else b""


@dataclass(frozen=True)
class Packed:
    """A layer as a registry has it: bytes, media type, notes on it; ``tar`` is what it unpacks to."""

    data: bytes
    kind: str
    tar: bytes
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest(self.data)


def digest(data: bytes) -> str:
    """ "sha256:…"."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def plain(files: Files) -> Packed:
    """Not packed."""
    tar = tar_layer(files)
    return Packed(tar, _LAYER, tar)


def gzipped(files: Files) -> Packed:
    """As most are."""
    tar = tar_layer(files)
    return Packed(gzip.compress(tar, 1, mtime=0), f"{_LAYER}+gzip", tar)


def zstandard(files: Files) -> Packed:
    """One frame of zstd."""
    tar = tar_layer(files)
    return Packed(zstd.compress(tar), f"{_LAYER}+zstd", tar)


def seekable(files: Files, frame: int = 32 << 10) -> Packed:
    """zstd in frames, with a table of them at the end (the seekable format of zstd's own contrib)."""
    tar = tar_layer(files)
    frames = [tar[at : at + frame] for at in range(0, len(tar), frame)]
    packed = [zstd.compress(one) for one in frames]
    rows = b"".join(struct.pack("<II", len(small), len(large)) for small, large in zip(packed, frames, strict=True))
    footer = struct.pack("<IBI", len(frames), 0, 0x8F92EAB1)
    table = struct.pack("<II", 0x184D2A5E, len(rows) + len(footer)) + rows + footer
    return Packed(b"".join(packed) + table, f"{_LAYER}+zstd", tar)


def stargz(files: Files, chunk: int = 64 << 10) -> Packed:
    """eStargz, as docs/estargz.md of the stargz snapshotter has it: a member of gzip a chunk, a table, a footer."""
    made = _Made(chunk, lambda data: gzip.compress(data, 1, mtime=0))
    made.add(files)
    raw = json.dumps({"version": 1, "entries": made.rows}).encode()
    made.flush()
    begin = len(made.out)
    end = tar_layer({"stargz.index.json": raw})
    made.tar += end
    made.out += gzip.compress(end, 1, mtime=0)
    extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % begin
    made.out += b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra
    made.out += b"\x01\x00\x00\xff\xff" + bytes(8)
    notes = {"containerd.io/snapshot/stargz/toc.digest": digest(raw)}
    return Packed(bytes(made.out), f"{_LAYER}+gzip", bytes(made.tar), notes)


def zstd_chunked(files: Files, chunk: int = 64 << 10) -> Packed:
    """zstd:chunked, as containers/storage writes it: a frame a chunk, then the table in a frame that is skipped."""
    made = _Made(chunk, zstd.compress, ends=True)
    made.add(files)
    made.pending += bytes(1024)
    made.tar += bytes(1024)
    made.flush()
    raw = json.dumps({"version": 1, "entries": made.rows}).encode()
    table = zstd.compress(raw)
    place = len(made.out) + 8
    made.out += struct.pack("<II", 0x184D2A50, len(table)) + table
    made.out += struct.pack("<II", 0x184D2A50, 64) + bytes(56) + b"GNUlInUx"
    name = "io.github.containers.zstd-chunked.manifest"
    notes = {f"{name}-checksum": digest(table), f"{name}-position": f"{place}:{len(table)}:{len(raw)}:1"}
    return Packed(bytes(made.out), f"{_LAYER}+zstd", bytes(made.tar), notes)


class _Made:
    """A tar whose contents are packed by themselves, and the rows that say where."""

    def __init__(self, chunk: int, pack: Any, *, ends: bool = False) -> None:
        self.out, self.tar, self.pending = bytearray(), bytearray(), bytearray()
        self.rows: list[dict[str, Any]] = []
        self._chunk, self._pack, self._ends = chunk, pack, ends

    def flush(self) -> None:
        if self.pending:
            self.out += self._pack(bytes(self.pending))
            self.pending.clear()

    def add(self, files: Files) -> None:
        for name, content in files.items():
            head = _header(name, content)
            self.tar += head
            self.pending += head
            if isinstance(content, To):
                kind = "hardlink" if content.hard else "symlink"
                self.rows.append({"type": kind, "name": name, "linkName": content.target})
            elif isinstance(content, bytes):
                self._content(name, content)
            else:
                self.rows.append({"type": "dir", "name": f"{name}/"})

    def _content(self, name: str, content: bytes) -> None:
        pieces = [content[at : at + self._chunk] for at in range(0, len(content), self._chunk)]
        rows: list[dict[str, Any]] = [{"type": "reg", "name": name, "size": len(content), "digest": digest(content)}]
        rows += [{"type": "chunk", "name": name} for _ in pieces[1:]]
        self.flush()
        for index, (row, piece) in enumerate(zip(rows, pieces, strict=False)):
            row["offset"] = len(self.out)
            if index:
                row["chunkOffset"] = index * self._chunk
            if len(pieces) > 1 and (self._ends or index + 1 < len(pieces)):
                row["chunkSize"] = len(piece)
            if len(pieces) > 1 or not self._ends:
                row["chunkDigest"] = digest(piece)
            self.out += self._pack(piece)
        rows[0]["endOffset"] = len(self.out)
        self.rows += rows
        padding = bytes(-len(content) % 512)
        self.tar += content + padding
        self.pending += padding


# Two layers, the lower and the upper one, with all that a layer can do to the one below it.
NOISE = random.Random(7).randbytes(1_300_000)  # noqa: S311  (the same each time)
LARGE = library([container(Code(75, size=900_000)), sm(80)], tail=NOISE[:700_000])
LOWER: Files = {
    "usr/": Folder,
    "usr/lib/": Folder,
    "usr/lib/kept.so": library([sm(75, 80)]),
    "usr/lib/large.so.1": LARGE,
    "usr/lib/plain.so": library(),
    "usr/lib/notes.txt": NOISE,
    "opt/a/gone.so": library([sm(70)]),
    "opt/b/below.so": library([sm(70)]),
    "opt/c/replaced.so": library([sm(70)]),
    "opt/d/now-a-file/hidden.so": library([sm(70)]),
    "opt/e": To("../usr/lib"),
    "opt/f/one.so": library([sm(86)]),
    "opt/f/another.so": To("opt/f/one.so", hard=True),
    "opt/f/data": library([sm(89)]),
    "opt/f/by_link.so": To("opt/f/data", hard=True),
}
UPPER: Files = {
    "opt/a/.wh.gone.so": b"",
    "opt/b/.wh..wh..opq": b"",
    "opt/b/new.so": library([sm(90)]),
    "opt/c/replaced.so": library([sm(80)]),
    "opt/d/now-a-file": b"x",
    "opt/e/": Folder,
    "opt/e/in-its-place.so": library([sm(75)]),
    "opt/f/.wh.another.so": b"",
    "proc/kept-out.so": library([sm(60)]),
    "etc/noise": NOISE,
}


PACKINGS = {
    "gzip": gzipped,
    "zstd": zstandard,
    "plain": plain,
    "seekable zstd": seekable,
    "eStargz": stargz,
    "zstd:chunked": zstd_chunked,
}


def image_of(
    layers: Sequence[Packed], *, architecture: str = "amd64", variant: str = ""
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The blobs of an image of these layers, the lowest first, by digest; and its manifest."""
    said: dict[str, Any] = {"os": "linux", "architecture": architecture, "config": {"Cmd": ["/x"]}}
    said |= {"variant": variant} if variant else {}
    said["rootfs"] = {"type": "layers", "diff_ids": [digest(layer.tar) for layer in layers]}
    config = json.dumps(said).encode()
    rows = [
        {"mediaType": layer.kind, "digest": layer.digest, "size": len(layer.data), "annotations": dict(layer.notes)}
        for layer in layers
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": digest(config), "size": len(config)},
        "layers": rows,
    }
    return {digest(config): config} | {layer.digest: layer.data for layer in layers}, manifest


def put_image(
    shelf: FakeRegistry, tag: str, layers: Sequence[Packed], *, architecture: str = "amd64", variant: str = ""
) -> str:
    """Have a registry hold an image of these layers, the lowest first; its digest."""
    blobs, manifest = image_of(layers, architecture=architecture, variant=variant)
    shelf.blobs |= blobs
    return put_manifest(shelf, tag, manifest)


def put_manifest(shelf: FakeRegistry, tag: str, manifest: Mapping[str, Any]) -> str:
    """Have a registry hold a manifest; its digest."""
    raw = json.dumps(manifest).encode()
    for name in (tag, digest(raw)):
        shelf.manifests[name] = (str(manifest["mediaType"]), raw)
    return digest(raw)


def put_index(shelf: FakeRegistry, tag: str, images: Sequence[tuple[str, str]]) -> str:
    """Have a registry hold an index of images, each (platform, digest); an attestation stands in it too."""
    rows = []
    for platform, one in [*images, ("unknown/unknown", digest(b"attestation"))]:
        parts = platform.split("/")
        said = dict(zip(("os", "architecture", "variant"), parts, strict=False))
        rows.append({"mediaType": _MANIFEST, "digest": one, "size": 1, "platform": said})
    return put_manifest(shelf, tag, {"schemaVersion": 2, "mediaType": _INDEX, "manifests": rows})
