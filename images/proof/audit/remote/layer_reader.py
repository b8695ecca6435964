"""One layer of an image in a registry, read: by its table of contents, by ranges of its tar, or whole as it comes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Literal, cast

from images.core import CheckFailed, Chunks, Unsafe
from images.device_code.sources import may_hold_code
from images.proof.audit.remote.content import LEAST, Parts, Reader, by_head, by_name
from images.proof.audit.remote.contents_table import Entry, Table
from images.proof.audit.remote.faults import LayerFault, NoParts
from images.proof.audit.remote.layer import PSEUDO, Layer
from images.proof.audit.remote.packing import GZIP, PLAIN, ZSTD, packing_of, unpacked
from images.proof.audit.remote.parts import RangedBlob, RangedFile, Ranges, SeekableZstd, Within
from images.proof.audit.remote.progress import Progress
from images.proof.audit.remote.tar_members import members
from images.registry import Blob, Repository

_WHOLE_BELOW = 1 << 20  # bytes of a layer that is not worth more than one request
How = Literal["whole", "in part, by digests", "in part, without a digest"]
WHOLE: How = "whole"
BY_DIGESTS: How = "in part, by digests"
UNCHECKED: How = "in part, without a digest"


@dataclass(frozen=True)
class ReadLayer:
    """What is in a layer (until it is merged), how it is packed and was read, and the bytes that came over the line."""

    layer: Layer
    packing: str
    how: How
    received: int


class LayerReader:
    """Reads one layer. ``hides``: whether a file is known not to be seen in the image; ``whole``: no parts."""

    def __init__(
        self, repository: Repository, blob: Blob, progress: Progress, hides: Callable[[str], bool], *, whole: bool
    ) -> None:
        self._repository, self._blob, self._progress, self._hides = repository, blob, progress, hides
        self._whole = whole or blob.size < _WHOLE_BELOW
        self._received = 0

    def read(self) -> ReadLayer:
        """The layer. Raises RegistryFailure, Unsafe, CheckFailed for one that is no layer, Stopped."""
        with closing(Reader()) as reader:
            if not self._whole:
                try:
                    return self._in_part(reader)
                except NoParts:
                    pass
            return self._streamed(reader)

    def _count(self, size: int) -> None:
        self._received += size
        self._progress.count(size)

    # -- in part

    def _in_part(self, reader: Reader) -> ReadLayer:
        """Raises NoParts where it has to be read whole."""
        ranges = RangedBlob(self._repository, self._blob, self._count)
        notes = dict(self._blob.notes)
        try:
            if Table.named_in(notes):
                table = Table(self._blob, ranges)
                layer = _Builder(reader, self._hides, self._progress).by_table(table)
                kind = "zstd:chunked" if table.kind == ZSTD else "eStargz"
                return ReadLayer(layer, kind, BY_DIGESTS, self._received)
            if self._blob.media_type.endswith(("gzip", "gz")):
                raise NoParts("gzip is unpacked from its begin on")
            if self._blob.media_type.endswith("zstd") and not SeekableZstd.ends_so(
                self._repository, self._blob, self._count
            ):
                raise NoParts("it is one frame, or has no table of its frames")
            kind = packing_of(ranges.read(0, min(LEAST, ranges.size)))
            if kind == GZIP:
                raise NoParts("gzip is unpacked from its begin on")
            tar: Ranges = ranges if kind == PLAIN else SeekableZstd(ranges)
            layer = _Builder(reader, self._hides, self._progress).by_ranges(tar)
            return ReadLayer(layer, kind if kind == PLAIN else "seekable zstd", UNCHECKED, self._received)
        except LayerFault as fault:
            # What is wrong with it is told by its whole, whose digest is known.
            raise NoParts(str(fault)) from fault

    # -- whole

    def _streamed(self, reader: Reader) -> ReadLayer:
        stream = self._repository.stream(self._blob, self._count)
        try:
            return self._stream_once(reader, iter(stream))
        except Unsafe:
            if not stream.resumed:
                raise
        # Its beginning and its end may be of two different answers: once more, from the begin on.
        return self._stream_once(reader, iter(self._repository.stream(self._blob, self._count)))

    def _stream_once(self, reader: Reader, pieces: Iterator[bytes]) -> ReadLayer:
        first = next(pieces, b"")
        try:
            tar = unpacked(_with_first(first, pieces), self._blob.size)
            with io.BufferedReader(Chunks(tar), 1 << 20) as source:
                layer = _Builder(reader, self._hides, self._progress).by_stream(cast("IO[bytes]", source))
                while source.read(1 << 20):
                    pass
        except LayerFault as fault:
            for _ in pieces:  # bytes that are not the layer's own explain it better: that is raised here
                pass
            raise CheckFailed(
                f"layer {self._blob.digest[7:19]} of {self._repository.name} cannot be read",
                cause=str(fault),
                do="see where the image is from: no engine could unpack it either",
            ) from fault
        for _ in pieces:
            pass
        return ReadLayer(layer, packing_of(first[:4].ljust(4, b"\0")), WHOLE, self._received)


def _with_first(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from pieces


class _Builder:
    """Makes a `Layer` of members, in the order of the tar."""

    def __init__(self, reader: Reader, hides: Callable[[str], bool], progress: Progress) -> None:
        self._reader, self._hides, self._progress = reader, hides, progress
        self._layer = Layer()

    def by_stream(self, stream: IO[bytes]) -> Layer:
        """Of a tar that goes by."""
        for tar, member in members(stream, "r|"):
            path = self._name(_kind(member), member.name, member.linkname)
            if path and _to_read(path, member.size):
                content = tar.extractfile(member)
                assert content is not None  # noqa: S101  (a regular file has content)
                self._judge_stream(path, content, member.size)
        return self._layer

    def by_ranges(self, tar: Ranges) -> Layer:
        """Of a tar that can be read anywhere; names that only a link gives to a file are read at the end."""
        others: dict[str, Within] = {}
        for _, member in members(cast("IO[bytes]", RangedFile(tar)), "r:"):
            path = self._name(_kind(member), member.name, member.linkname)
            others.pop(path, None)
            if path and _to_read(path, member.size):
                if member.issparse():
                    raise NoParts("a sparse file is in it")
                file = Within(tar, member.offset_data, member.size)
                if may_hold_code(path):
                    self._judge_parts(path, path, file)
                else:
                    others[path] = file
        self._by_link(others)
        return self._layer

    def by_table(self, table: Table) -> Layer:
        """Of a table of contents."""
        others: dict[str, Parts] = {}
        wanted: list[tuple[int, str, Entry]] = []
        for entry in table.entries():
            path = self._name(entry.kind, entry.name, entry.target)
            if path and _to_read(path, entry.size):
                wanted.append((entry.chunks[0].begin, path, entry))
        last = {path: entry for _, path, entry in wanted}
        for _, path, entry in sorted(wanted, key=lambda one: one[0]):  # in the blob's order: fewer requests
            if last[path] is not entry or path not in self._layer.files:
                continue
            if may_hold_code(path):
                self._judge_parts(path, path, table.file(entry))
            else:
                others[path] = table.file(entry)
        self._by_link(others)
        return self._layer

    def _name(self, kind: str, name: str, target: str) -> str:
        """Note a member's name; its path if it is a regular file, else ""."""
        self._progress.member()
        layer = self._layer
        folder, base = layer.place(name)
        if not base or layer.whiteout(folder, base):
            return ""
        path = f"{folder}/{base}" if folder else base
        if kind == "dir":
            layer.folder(path)
        elif kind == "hardlink":
            layer.link(path, "/".join(layer.place(target)).lstrip("/"))
        elif kind == "symlink":
            layer.symlink(path, target)
        else:
            layer.file(path)
            return path if kind == "reg" else ""
        return ""

    def _judge_stream(self, path: str, content: IO[bytes], size: int) -> None:
        if self._hides(path):
            return
        head = content.read(LEAST)
        # A name that says nothing may have another beside it that comes later in the tar, of a library.
        if by_head(head) or by_name(path):
            found = self._reader.stream(path, head, content, size)
            if found is not None:
                self._layer.found[path] = found

    def _judge_parts(self, path: str, name: str, file: Parts) -> None:
        if not self._hides(path) and (found := self._reader.parts(name, file)) is not None:
            self._layer.found[path] = found

    def _by_link(self, others: dict[str, Within] | dict[str, Parts]) -> None:
        """Read files whose own name is no library's, and that have a link whose name is one."""
        for link, target in self._layer.links.items():
            if target in others and target not in self._layer.found and may_hold_code(link):
                self._judge_parts(target, link, others[target])


def _to_read(path: str, size: int) -> bool:
    return size >= LEAST and not path.startswith(PSEUDO)


def _kind(member: tarfile.TarInfo) -> str:
    if member.isreg():
        return "reg"
    if member.isdir():
        return "dir"
    if member.islnk():
        return "hardlink"
    return "symlink" if member.issym() else "other"
