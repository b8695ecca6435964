"""A stream cut into pieces and joined again: bounds, resuming, damage; nothing but its own files is touched."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.core.errors import UsageError
from images.distribution.pieces import (
    MOST_PIECES,
    Joined,
    Piece,
    Stream,
    chunks_of,
    fault_of,
    parse_size,
    piece_name,
    sizes_of_pieces,
    write_pieces,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("60MB", 60_000_000),
        ("60MiB", 62_914_560),
        (" 4 GB ", 4_000_000_000),
        ("1.5gib", 1_610_612_736),
        ("1MB", 10**6),
        ("1000GB", 10**12),
        ("1.25GB", 1_250_000_000),
    ],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "60", "60M", "-60MB", "60 kB", "1e9MB", "99999999999999999999MB", "0MB", "0.9MB", "1001GB", "6.0000MB"]
)
def test_what_is_no_size_of_a_piece_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--split"):
        parse_size(text)


def test_the_pieces_of_a_stream_add_up_and_are_not_too_many() -> None:
    assert sizes_of_pieces(10, 4) == (4, 4, 2)
    assert sizes_of_pieces(8, 4) == (4, 4)
    assert sizes_of_pieces(0, 4) == ()
    assert len(sizes_of_pieces(MOST_PIECES * 10**6, 10**6)) == MOST_PIECES
    with pytest.raises(UsageError, match="10000 pieces, more than 9999") as caught:
        sizes_of_pieces(MOST_PIECES * 10**6 + 1, 10**6)
    assert caught.value.do == "larger pieces: --split 2MB"


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=6), st.integers(1, 40), st.data())
def test_any_part_of_a_stream_is_read_from_where_it_is(parts: list[bytes], split: int, data: st.DataObject) -> None:
    whole = b"".join(parts)
    stream = Stream(parts)
    start = data.draw(st.integers(0, len(whole)))
    assert b"".join(stream.read(start, split)) == whole[start : start + split]
    cut = [b"".join(stream.read(n * split, size)) for n, size in enumerate(sizes_of_pieces(stream.size, split))]
    assert b"".join(cut) == whole


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    """23 bytes, of memory and of a file."""
    (tmp_path / "part").write_bytes(b"0123456789")
    return Stream([b"abc", tmp_path / "part", b"", b"ABCDEFGHIJ"])


def test_pieces_are_written_once_and_joined_again(stream: Stream, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "note.txt").write_text("not ours")
    (out / "piece-0009.part").write_text("of a longer stream")
    (out / "piece-9.part").write_text("not ours either")
    said: list[str] = []
    pieces = write_pieces(stream, out, 5, said.append)
    assert [(piece.name, piece.size) for piece in pieces] == [(piece_name(n), 5 if n < 5 else 3) for n in range(1, 6)]
    assert said[-1] == "piece-0005.part of 5: written"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(piece.name for piece in pieces), "note.txt", "piece-9.part"]
    )
    assert b"".join((out / piece.name).read_bytes() for piece in pieces) == b"abc0123456789ABCDEFGHIJ"
    os.utime(out / "piece-0002.part", (1, 1))
    (out / "piece-0003.part").write_bytes(b"7????")
    (out / ".piece-0004.part").write_bytes(b"what a killed run left")
    (out / "piece-0004.part").unlink()
    said.clear()
    assert write_pieces(stream, out, 5, said.append) == pieces
    assert (out / "piece-0002.part").stat().st_mtime == 1
    assert [line.partition(": ")[2] for line in said] == ["whole already"] * 2 + ["written"] * 2 + ["whole already"]
    assert not (out / ".piece-0004.part").exists()


def test_what_is_wrong_with_a_piece_is_told(tmp_path: Path) -> None:
    piece = Piece("piece-0001.part", 4, hashlib.sha256(b"good").hexdigest())
    path = tmp_path / piece.name
    missing = fault_of(tmp_path, piece)
    assert missing is not None
    assert missing.missing
    path.write_bytes(b"good")
    assert fault_of(tmp_path, piece) is None
    told = []
    for content in (b"goot", b"goo", b"good!", b""):
        path.write_bytes(content)
        fault = fault_of(tmp_path, piece)
        assert fault is not None
        assert not fault.missing
        told.append(fault.why)
    assert told[0].startswith("its SHA-256 is ")
    assert told[1:] == ["3 bytes instead of 4", "5 bytes instead of 4", "0 bytes instead of 4"]
    path.unlink()
    os.mkfifo(path)  # which nobody writes into: reading it would never end
    fault = fault_of(tmp_path, piece)
    assert fault is not None
    assert fault.why == "no file"


def test_joined_pieces_are_one_file_to_read_from_anywhere(stream: Stream, tmp_path: Path) -> None:
    joined = Joined(tmp_path, write_pieces(stream, tmp_path, 5))
    assert joined.readable()
    assert joined.seekable()
    assert joined.read() == b"abc0123456789ABCDEFGHIJ"
    joined.seek(7)
    assert b"".join(chunks_of(joined, 9)) == b"456789ABC"
    assert joined.tell() == 16
    joined.seek(4)
    assert joined.read(1) == b"1"
    joined.seek(100)
    assert joined.read(1) == b""
    with pytest.raises(OSError, match="beginning"):
        joined.seek(0, os.SEEK_END)
    joined.close()
