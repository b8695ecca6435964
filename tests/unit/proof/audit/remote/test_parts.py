"""Parts of blobs: how many requests they are, and tables that say what cannot be."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast

import pytest

from images.core import Unsafe
from images.proof.audit.remote.contents_table import CHUNKED, STARGZ, Table
from images.proof.audit.remote.faults import LayerFault, NoParts
from images.proof.audit.remote.packing import zstd
from images.proof.audit.remote.parts import Chunk, Chunked, RangedBlob, RangedFile, SeekableZstd
from images.registry import Blob, Repository
from tests.helpers.nonempty import nonempty
from tests.helpers.remote_images import LARGE, LOWER, NOISE, digest, seekable, stargz, zstd_chunked


class Shelf:
    """A repository that gives parts of one blob, and notes what it was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []
        self.blob = Blob("tar", digest(data), len(data))

    def part(self, _: Blob, begin: int, length: int, count: Callable[[int], None]) -> bytes:
        self.asked.append((begin, length))
        count(length)
        return self.data[begin : begin + length]

    def ranges(self) -> RangedBlob:
        return RangedBlob(cast("Repository", self), self.blob, lambda _: None)


DATA = NOISE * 12


def test_what_is_read_in_order_comes_in_few_requests() -> None:
    shelf = Shelf(DATA)
    ranges = shelf.ranges()
    assert b"".join(ranges.read(at, 1000) for at in range(0, len(DATA), 1000)) == DATA
    assert len(shelf.asked) < 12
    assert sum(length for _, length in shelf.asked) == len(DATA)


def test_what_lies_far_ahead_is_skipped() -> None:
    shelf = Shelf(DATA)
    ranges = shelf.ranges()
    for at in (0, 8_000_000, 3_000_000, 3_000_100):
        assert ranges.read(at, 64) == DATA[at : at + 64]
    assert shelf.asked == [(0, 131072), (8_000_000, 131072), (3_000_000, 131072)]
    assert ranges.read(5, 0) == b""
    for begin, length in ((len(DATA), 1), (-1, 4), (0, len(DATA) + 1)):
        with pytest.raises(LayerFault, match="not inside"):
            ranges.read(begin, length)


def test_going_back_and_forth_asks_for_nothing_twice() -> None:
    shelf = Shelf(DATA)
    ranges = shelf.ranges()
    for step in range(300):
        for at in (step * 100, 5_000_000 + step * 1000, 5_200_000 + step * 200):
            assert ranges.read(at, 64) == DATA[at : at + 64]
    spans = sorted(shelf.asked)
    assert len(spans) <= 8  # so many answers are kept
    assert all(begin + length <= after for (begin, length), (after, _) in pairwise(spans))
    assert ranges.read(4_000_000, 2_500_000) == DATA[4_000_000:6_500_000]
    assert len(shelf.asked) < 20


def test_a_registry_that_gives_no_parts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(DATA)
    monkeypatch.setattr(shelf, "part", lambda *_: None)
    with pytest.raises(NoParts):
        shelf.ranges().read(0, 1)


def test_ranges_as_a_file() -> None:
    file = RangedFile(Shelf(b"0123456789").ranges())
    assert (file.readable(), file.seekable()) == (True, True)
    assert (file.read(3), file.tell()) == (b"012", 3)
    assert (file.seek(-2, 2), file.read()) == (8, b"89")
    assert (file.seek(1), file.seek(1, 1), file.read(1)) == (1, 2, b"2")
    assert (file.seek(100), file.read(1)) == (100, b"")


def test_a_table_of_frames() -> None:
    packed = seekable(LOWER)
    frames = SeekableZstd(Shelf(packed.data).ranges())
    assert frames.size == len(packed.tar)
    for at in (0, 40_000, len(packed.tar) - 10):
        assert frames.read(at, 10) == packed.tar[at : at + 10]
    assert frames.read(0, 500_000) == packed.tar[:500_000]
    with pytest.raises(LayerFault, match="no byte"):
        frames.read(len(packed.tar) - 1, 2)


def footer(count: int, flags: int = 0, magic: int = 0x8F92EAB1) -> bytes:
    return struct.pack("<IBI", count, flags, magic)


@pytest.mark.parametrize(
    "data",
    [
        b"short",
        zstd.compress(NOISE),
        bytes(100) + footer(0),
        bytes(100) + footer(1 << 31),
        bytes(100) + footer(3),
        struct.pack("<IIII", 0x184D2A5E, 17, 1 << 30, 10) + footer(1),
        bytes(10) + struct.pack("<IIII", 0x184D2A5E, 17, 10, 1 << 31) + footer(1),
    ],
)
def test_what_is_no_table_of_frames(data: bytes) -> None:
    with pytest.raises(NoParts):
        SeekableZstd(Shelf(data).ranges())


def test_a_frame_of_another_size_is_told() -> None:
    packed = zstd.compress(b"ten bytes.")
    table = struct.pack("<IIII", 0x184D2A5E, 17, len(packed), 11) + footer(1)
    with pytest.raises(LayerFault, match="another size"):
        SeekableZstd(Shelf(packed + table).ranges()).read(0, 11)


def test_chunks_are_checked_and_zeros_lie_nowhere() -> None:
    pieces = [NOISE[:1000], NOISE[1000:3000]]
    packed = [zstd.compress(piece) for piece in pieces]
    blob = Shelf(b"".join(packed)).ranges()
    ends = [len(packed[0]), len(packed[0]) + len(packed[1])]
    chunks = [
        Chunk(0, 1000, 0, ends[0], 0, digest(pieces[0])),
        Chunk(1000, 500, 0, 0, 0, ""),
        Chunk(1500, 2000, ends[0], ends[1], 0, digest(pieces[1])),
    ]
    file = Chunked(blob, chunks, 3500, "zstd")
    assert file.read(0, 3500) == NOISE[:1000] + bytes(500) + NOISE[1000:3000]
    assert file.read(990, 20) == NOISE[990:1000] + bytes(10)
    with pytest.raises(LayerFault, match="no byte"):
        file.read(3400, 101)
    wrong = Chunked(blob, [Chunk(0, 1000, 0, ends[0], 0, digest(b"another"))], 1000, "zstd")
    with pytest.raises(Unsafe, match="a chunk of a file"):
        wrong.read(0, 1)


@pytest.mark.parametrize("make", [stargz, zstd_chunked])
def test_a_table_of_contents_names_all_that_is_there(make: Callable[..., Any]) -> None:
    packed = make(LOWER)
    shelf = Shelf(packed.data)
    table = Table(Blob(packed.kind, packed.digest, len(packed.data), tuple(packed.notes.items())), shelf.ranges())
    entries = {entry.name.rstrip("/"): entry for entry in table.entries()}
    assert set(entries) == {name.rstrip("/") for name in LOWER}
    large = entries["usr/lib/large.so.1"]
    assert len(large.chunks) == -(-len(LARGE) // (64 << 10))
    assert table.file(large).read(0, len(LARGE)) == LARGE
    assert entries["opt/f/by_link.so"].target == "opt/f/data"


def table_of(rows: list[Any], *, version: int = 1, raw: bytes | None = None) -> Table:
    """A table of these rows, before which 1000 bytes of content lie."""
    raw = json.dumps({"version": version, "entries": rows}).encode() if raw is None else raw
    packed = zstd.compress(raw)
    data = bytes(1008) + packed
    notes = {CHUNKED: digest(packed), f"{CHUNKED[:-8]}position": f"1008:{len(packed)}:{len(raw)}:1"}
    return Table(Blob("tar+zstd", digest(data), len(data), tuple(notes.items())), Shelf(data).ranges())


GOOD: Mapping[str, Any] = {"type": "reg", "name": "a.so", "size": 100, "offset": 10, "digest": digest(b"x")}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{**GOOD, "size": -1}], LayerFault),
        ([{**GOOD, "size": True}], LayerFault),
        ([{**GOOD, "name": 7}], LayerFault),
        ([{**GOOD, "offset": 1 << 60}], LayerFault),
        ([{**GOOD, "offset": 5000}], NoParts),
        ([{**GOOD, "digest": "sha256:x"}], NoParts),
        ([{**GOOD, "size": 1 << 40}], NoParts),
        ([{**GOOD, "innerOffset": 1 << 40}], NoParts),
        ([{"type": "chunk", "name": "a.so"}], LayerFault),
        ([GOOD, {"type": "chunk", "name": "b.so"}], LayerFault),
        ([GOOD, {"type": "chunk", "name": "a.so", "chunkOffset": 0, "offset": 20}], LayerFault),
        ([GOOD, {"type": "chunk", "name": "a.so", "chunkOffset": 200, "offset": 20}], LayerFault),
    ],
)
def test_rows_that_cannot_be_are_refused(rows: list[Any], fault: type[Exception]) -> None:
    assert len(list(table_of([dict(GOOD)]).entries())) == 1
    with pytest.raises(fault):
        list(table_of(rows).entries())


@pytest.mark.parametrize(
    "raw", [b"no json", b"[]", b'{"version": 2, "entries": []}', b'{"version": 1, "entries": [7]}']
)
def test_tables_that_are_none(raw: bytes) -> None:
    with pytest.raises(NoParts):
        table_of([], raw=raw)


def test_places_of_tables_that_are_none() -> None:
    shelf = Shelf(NOISE)
    for notes in nonempty(
        [
            {},
            {STARGZ: "sha256:x"},
            {STARGZ: digest(b"")},
            {CHUNKED: digest(b"")},
            {CHUNKED: digest(b""), f"{CHUNKED[:-8]}position": "0:99999999999:1:1"},
            {CHUNKED: digest(b""), f"{CHUNKED[:-8]}position": "1:2:3:9"},
        ]
    ):
        with pytest.raises(NoParts):
            Table(Blob("tar", shelf.blob.digest, len(NOISE), tuple(notes.items())), shelf.ranges())
    with pytest.raises(NoParts):
        Table(Blob("tar", digest(b"x"), 1, ((STARGZ, digest(b"")),)), Shelf(b"x").ranges())
