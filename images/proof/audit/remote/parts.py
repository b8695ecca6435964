"""Parts of a layer in a registry: ranges of its blob, of the tar in it, of one file in it."""

from __future__ import annotations

import hashlib
import io
import struct
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from images.core import Unsafe
from images.proof.audit.remote.faults import LayerFault, NoParts
from images.proof.audit.remote.packing import ZSTD, unpack_whole
from images.registry import Blob, Repository

# Bytes of a request: at first, at most ahead of what was asked for, and at most in all. What goes on where the last one
# ended is asked for in larger and larger pieces.
_FIRST, _AHEAD, _LARGEST = 128 << 10, 2 << 20, 8 << 20
_HELD = 8  # answers that are kept: a library's begin and its table of sections are asked for by turns
# A gap of so many bytes is read through: on a line of 100 Mbit/s that is as quick as to ask once more.
_NEAR = 512 << 10
MOST_CHUNK = 64 << 20  # bytes of what is packed by itself, unpacked: it is held in memory
_KEPT = 4  # chunks that were unpacked


class Ranges(Protocol):
    """Bytes of which any part can be read."""

    @property
    def size(self) -> int:
        """How many."""

    def read(self, begin: int, length: int) -> bytes:
        """So many bytes from ``begin`` on. Raises LayerFault where they are not there."""


class RangedBlob:
    """A blob by ranges: what is read in order comes in few requests, what lies far ahead is skipped.

    Raises NoParts where the registry gives no ranges, and RegistryFailure as every request.
    """

    def __init__(self, repository: Repository, blob: Blob, count: Callable[[int], None]) -> None:
        self._repository, self._blob, self._count = repository, blob, count
        self._held: deque[tuple[int, bytes]] = deque(maxlen=_HELD)
        self._end = 0
        self._next = _FIRST

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self._blob.size

    def read(self, begin: int, length: int) -> bytes:
        """So many bytes from ``begin`` on, some of them from earlier requests."""
        if begin < 0 or length < 0 or length > self.size - begin:
            raise LayerFault(f"{length} bytes at {begin} are not inside its {self.size}")
        found = bytearray()
        while len(found) < length:
            at, left = begin + len(found), length - len(found)
            start, data = self._held_at(at) or self._fetch(at, left)
            found += data[at - start : at - start + left]
        return bytes(found)

    def _held_at(self, at: int) -> tuple[int, bytes] | None:
        return next((held for held in reversed(self._held) if held[0] <= at < held[0] + len(held[1])), None)

    def _fetch(self, at: int, length: int) -> tuple[int, bytes]:
        follows = 0 < self._end <= at <= self._end + _NEAR and self._unheld(self._end) > at - self._end
        start = self._end if follows else at
        self._next = min(_AHEAD, self._next * 2) if follows else _FIRST
        many = min(max(self._next, min(length, _LARGEST) + at - start), self._unheld(start))
        data = self._repository.part(self._blob, start, many, self._count)
        if data is None:
            raise NoParts("the registry gives no parts of it")
        self._held.append((start, data))
        self._end = start + many
        return start, data

    def _unheld(self, start: int) -> int:
        """Bytes from ``start`` up to what is held already, or to the end."""
        return min([begin for begin, _ in self._held if begin > start] + [self.size]) - start


@dataclass(frozen=True)
class Within:
    """A file in a tar: ``size`` bytes at ``begin`` of ``ranges``."""

    ranges: Ranges
    begin: int
    size: int

    def read(self, begin: int, length: int) -> bytes:
        """So many bytes of the file from ``begin`` on."""
        return self.ranges.read(self.begin + begin, length)


@dataclass(frozen=True)
class Chunk:
    """``size`` bytes of a file, from ``place`` in it on, packed by themselves.

    They lie at ``begin`` to ``end`` of the blob, ``inner`` bytes behind the begin of what is packed there; ``digest``
    is theirs, unpacked ("sha256:…"). Without ``end`` they are zeros and lie nowhere.
    """

    place: int
    size: int
    begin: int
    end: int
    inner: int
    digest: str


class Chunked:
    """A file of chunks, each packed by itself and checked by its digest. Raises Unsafe for one that has another."""

    def __init__(self, blob: Ranges, chunks: Sequence[Chunk], size: int, kind: str) -> None:
        self._blob, self._chunks, self._kind = blob, chunks, kind
        self._places = [chunk.place for chunk in chunks]
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.size = size

    def read(self, begin: int, length: int) -> bytes:
        """So many bytes of the file from ``begin`` on."""
        found = bytearray()
        while len(found) < length:
            at = begin + len(found)
            index = bisect_right(self._places, at) - 1
            data = self._chunk(index)
            part = data[at - self._places[index] :][: length - len(found)]
            if not part:
                raise LayerFault(f"no byte {at} is in a file of {self.size}")
            found += part
        return bytes(found)

    def _chunk(self, index: int) -> bytes:
        if index not in self._kept:
            self._kept[index] = self._unpacked(self._chunks[index])
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def _unpacked(self, chunk: Chunk) -> bytes:
        if not chunk.end:
            return bytes(chunk.size)
        packed = self._blob.read(chunk.begin, chunk.end - chunk.begin)
        data = unpack_whole(packed, self._kind, chunk.inner + chunk.size)[chunk.inner :]
        check(data, chunk.digest, "a chunk of a file")
        return data


def check(data: bytes, digest: str, what: str) -> None:
    """Raise Unsafe for bytes of another digest."""
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != digest:
        raise Unsafe(
            f"{what} is not what its digest says",
            cause=f"asked for {digest}, got {found}",
            do="do not use the image; tell whoever runs this registry",
        )


class RangedFile(io.RawIOBase):
    """Ranges as a file to read from and to seek in."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges, self._at = ranges, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ranges.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer``, as far as there are bytes."""
        room = memoryview(cast("bytearray", buffer))
        many = max(0, min(len(room), self._ranges.size - self._at))
        if many:
            room[:many] = self._ranges.read(self._at, many)
        self._at += many
        return many


# The seek table of the seekable format of zstd (contrib/seekable_format/zstd_seekable_compression_format.md): a
# skippable frame at the end; in its last nine bytes the number of frames, a bit that says whether each has a checksum.
_FOOTER, _FOOTER_MAGIC = struct.Struct("<IBI"), 0x8F92EAB1
_SKIPPABLE, _SKIPPABLE_MAGIC = struct.Struct("<II"), 0x184D2A5E
_MOST_FRAMES = 1 << 22
_CHECKSUMS = 0x80


class SeekableZstd:
    """What is packed in frames of zstd with a table of them at the end. Raises NoParts where there is no such table."""

    def __init__(self, blob: Ranges) -> None:
        self._blob = blob
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._begins, self._places = self._table()
        self.size = self._places[-1]

    @staticmethod
    def ends_so(repository: Repository, blob: Blob, count: Callable[[int], None]) -> bool:
        """Whether a blob ends as one with a table of frames does. Raises NoParts where the registry gives no parts."""
        last = repository.part(blob, blob.size - _FOOTER.size, _FOOTER.size, count) if blob.size > _FOOTER.size else b""
        if last is None:
            raise NoParts("the registry gives no parts of it")
        return bool(last) and _FOOTER.unpack(last)[2] == _FOOTER_MAGIC

    def _table(self) -> tuple[list[int], list[int]]:
        """Where each frame begins in the blob and in what it unpacks to; the ends last."""
        none = NoParts("it has no table of frames")
        if self._blob.size < _FOOTER.size + _SKIPPABLE.size:
            raise none
        count, flags, magic = _FOOTER.unpack(self._blob.read(self._blob.size - _FOOTER.size, _FOOTER.size))
        row = 12 if flags & _CHECKSUMS else 8
        length = _SKIPPABLE.size + count * row + _FOOTER.size
        if magic != _FOOTER_MAGIC or not 0 < count <= _MOST_FRAMES or length > self._blob.size:
            raise none
        table = self._blob.read(self._blob.size - length, length)
        if _SKIPPABLE.unpack_from(table) != (_SKIPPABLE_MAGIC, length - _SKIPPABLE.size):
            raise none
        begins, places = [0], [0]
        for at in range(_SKIPPABLE.size, _SKIPPABLE.size + count * row, row):
            packed, size = struct.unpack_from("<II", table, at)
            if size > MOST_CHUNK:
                raise NoParts(f"a frame of it has {size} bytes")
            begins.append(begins[-1] + packed)
            places.append(places[-1] + size)
        if begins[-1] > self._blob.size - length:
            raise none
        return begins, places

    def read(self, begin: int, length: int) -> bytes:
        """So many unpacked bytes from ``begin`` on."""
        found = bytearray()
        while len(found) < length:
            at = begin + len(found)
            index = bisect_right(self._places, at) - 1
            if not 0 <= index < len(self._begins) - 1:
                raise LayerFault(f"no byte {at} is in its {self.size}")
            found += self._frame(index)[at - self._places[index] :][: length - len(found)]
        return bytes(found)

    def _frame(self, index: int) -> bytes:
        if index not in self._kept:
            size = self._places[index + 1] - self._places[index]
            packed = self._blob.read(self._begins[index], self._begins[index + 1] - self._begins[index])
            data = unpack_whole(packed, ZSTD, size)
            if len(data) != size:
                raise LayerFault("a frame of it has another size than its table says")
            self._kept[index] = data
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]
