"""Layers with a table of contents: eStargz and zstd:chunked. Which files there are, and where each lies, packed alone.

The table is taken only where the image's manifest names its digest, so that what is believed of it is what the image
says. Sources: docs/estargz.md of containerd's stargz-snapshotter; pkg/chunked/internal/minimal of containers/storage.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from images.proof.audit.remote.faults import LayerFault, NoParts
from images.proof.audit.remote.packing import GZIP, ZSTD, unpack_whole
from images.proof.audit.remote.parts import MOST_CHUNK, Chunk, Chunked, Ranges, check
from images.registry import Blob

STARGZ = "containerd.io/snapshot/stargz/toc.digest"
CHUNKED = "io.github.containers.zstd-chunked.manifest-checksum"
_CHUNKED_PLACE = "io.github.containers.zstd-chunked.manifest-position"
_FOOTER = 51
_FOOTER_FORM = re.compile(rb"\x1f\x8b.{8}\x1a\x00SG\x16\x00([0-9a-f]{16})STARGZ.{13}", re.DOTALL)
_POSITION = re.compile(r"(\d{1,18}):(\d{1,12}):(\d{1,12}):1")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_TABLE = 128 << 20  # bytes of JSON: some 300 a file, and as values they take ten times as much
_MOST_PACKED = 64 << 20
_MOST_ENTRIES = 1_000_000
_INDEX = "stargz.index.json"


@dataclass(frozen=True)
class Entry:
    """A row of the table: its ``kind`` ("reg", "dir", "symlink", "hardlink", …), name, target of a link, size."""

    kind: str
    name: str
    target: str
    size: int
    chunks: tuple[Chunk, ...]


class Table:
    """The table of a layer; `entries` in its order. Raises NoParts where the layer has none that can be relied on."""

    def __init__(self, blob: Blob, ranges: Ranges) -> None:
        notes = dict(blob.notes)
        self._ranges = ranges
        if _DIGEST.fullmatch(notes.get(CHUNKED, "")):
            self.kind, self._end = ZSTD, 0
            raw = self._of_zstd(notes)
        elif _DIGEST.fullmatch(notes.get(STARGZ, "")):
            self.kind, self._end = GZIP, 0
            raw = self._of_stargz(notes[STARGZ])
        else:
            raise NoParts("it has no table of contents")
        self._rows = _rows(raw)

    @staticmethod
    def named_in(notes: Mapping[str, str]) -> bool:
        """Whether a layer's notes name the digest of a table."""
        return any(_DIGEST.fullmatch(notes.get(name, "")) for name in (CHUNKED, STARGZ))

    def _of_zstd(self, notes: Mapping[str, str]) -> bytes:
        place = _POSITION.fullmatch(notes.get(_CHUNKED_PLACE, ""))
        if place is None:
            raise NoParts("its table of contents is of a kind that is not known")
        begin, length, size = (int(place[number]) for number in (1, 2, 3))
        if length > _MOST_PACKED or size > _MOST_TABLE or not length or begin + length > self._ranges.size:
            raise NoParts("its table of contents is beyond the bounds")
        packed = self._ranges.read(begin, length)
        check(packed, notes[CHUNKED], "the table of contents of a layer")
        self._end = begin
        return unpack_whole(packed, ZSTD, size)

    def _of_stargz(self, digest: str) -> bytes:
        if self._ranges.size < _FOOTER:
            raise NoParts("it has no table of contents")
        footer = _FOOTER_FORM.fullmatch(self._ranges.read(self._ranges.size - _FOOTER, _FOOTER))
        begin = int(footer[1], 16) if footer else self._ranges.size
        length = self._ranges.size - _FOOTER - begin
        if not 0 < length <= _MOST_PACKED:
            raise NoParts("its table of contents is not where it should be")
        self._end = begin
        tar = unpack_whole(self._ranges.read(begin, length), GZIP, _MOST_TABLE)
        try:
            with tarfile.open(fileobj=BytesIO(tar), mode="r:") as opened:
                member = opened.next()
                file = opened.extractfile(member) if member is not None and member.name == _INDEX else None
                raw = b"" if file is None else file.read()
        except tarfile.TarError as error:
            raise NoParts(f"its table of contents cannot be read: {error}") from error
        check(raw, digest, "the table of contents of a layer")
        return raw

    def entries(self) -> Iterator[Entry]:
        """Each file, folder and link. Raises LayerFault for a table that says what cannot be."""
        ends = _ends(self._rows, self._end)
        last: list[Mapping[str, Any]] = []
        for row in [*self._rows, {"type": ""}]:
            if row.get("type") == "chunk":
                if not last or row.get("name") != last[0].get("name"):
                    raise LayerFault("its table of contents has a chunk of no file")
                last.append(row)
                continue
            if last:
                yield _entry(last, ends)
            last = [row]

    def file(self, entry: Entry) -> Chunked:
        """The content of a regular file."""
        return Chunked(self._ranges, entry.chunks, entry.size, self.kind)


def _rows(raw: bytes) -> list[Mapping[str, Any]]:
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NoParts(f"its table of contents is no JSON: {error}") from error
    rows = said.get("entries") if isinstance(said, dict) else None
    if not isinstance(rows, list) or said.get("version") != 1 or len(rows) > _MOST_ENTRIES:
        raise NoParts("its table of contents is of a version that is not known")
    if not all(isinstance(row, dict) for row in rows):
        raise NoParts("its table of contents has a row that is none")
    return rows


def _number(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name) or 0
    if type(value) is not int or not 0 <= value < 1 << 50:
        raise LayerFault(f"its table of contents has no sensible {name}")
    return value


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name) or ""
    if not isinstance(value, str):
        raise LayerFault(f"its table of contents has no sensible {name}")
    return value


def _ends(rows: list[Mapping[str, Any]], end: int) -> dict[int, int]:
    """Offset of something packed -> offset of the next one: it ends there at the latest."""
    offsets = sorted({offset for row in rows if (offset := _number(row, "offset")) and offset < end})
    return dict(zip(offsets, [*offsets[1:], end], strict=False))  # there may be none


def _entry(rows: list[Mapping[str, Any]], ends: Mapping[int, int]) -> Entry:
    first = rows[0]
    kind, size = _text(first, "type"), _number(first, "size")
    chunks: list[Chunk] = []
    for index, row in enumerate(rows if kind == "reg" and size else ()):
        place = _number(row, "chunkOffset")
        behind = _number(rows[index + 1], "chunkOffset") if index + 1 < len(rows) else size
        begin = _number(row, "offset")
        digest = _text(row, "chunkDigest") or (_text(row, "digest") if len(rows) == 1 else "")
        zeros = row.get("chunkType") == "zeros"
        end = 0 if zeros else ends.get(begin, 0)
        if place != (chunks[-1].place + chunks[-1].size if chunks else 0) or not place < behind <= size:
            raise LayerFault(f"its table of contents has chunks of {_text(first, 'name')[:200]!r} that do not follow")
        inner = _number(row, "innerOffset")
        if max(behind - place, inner) > MOST_CHUNK:
            raise NoParts(f"a chunk of it has {behind - place} bytes")
        if not zeros and (not end or not _DIGEST.fullmatch(digest)):
            raise NoParts("its table of contents lacks places or digests")
        chunks.append(Chunk(place, behind - place, begin, end, inner, digest))
    return Entry(kind, _text(first, "name"), _text(first, "linkName"), size, tuple(chunks))
