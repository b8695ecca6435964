"""A long stream of bytes as files of a bounded size, each with its digest; and such files read as one stream again.

A piece is the stream's bytes from its own place on, so that each can be made, checked and brought again by itself.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.core import UsageError, sha256_of

Say = Callable[[str], None]
MOST_PIECES = 9999  # four digits: `cat piece-*.part` joins them in their order
LEAST_BYTES, MOST_BYTES = 10**6, 10**12  # of a piece
_CHUNK = 4 << 20
_SIZE = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?\s*(MB|MiB|GB|GiB)", re.IGNORECASE)
_UNITS = {"mb": 10**6, "mib": 2**20, "gb": 10**9, "gib": 2**30}


@dataclass(frozen=True)
class Piece:
    """A file: its name, its size in bytes, the SHA-256 of its bytes in hexadecimal digits."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Fault:
    """What is wrong with a piece: "missing", or another word where it is damaged, in words; "" for a whole one."""

    name: str
    missing: bool
    why: str


def parse_size(text: str) -> int:
    """``--split`` in bytes: "60MB", "60MiB", "1.5GB". Raises UsageError for anything else, and beyond the bounds."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--split {text[:40]!r} is no size", do="--split 60MB, 60MiB, 4GB or 4GiB")
    thousandths = int(match[1]) * 1000 + int((match[2] or "0").ljust(3, "0"))
    size = thousandths * _UNITS[match[3].lower()] // 1000
    if not LEAST_BYTES <= size <= MOST_BYTES:
        raise UsageError(
            f"--split {text[:40]} is out of bounds", cause="a piece has 1 MB at least, 1 TB at most", do="--split 60MB"
        )
    return size


def piece_name(number: int) -> str:
    """The name of a piece, counted from 1."""
    return f"piece-{number:04d}.part"


def sizes_of_pieces(total: int, split: int) -> tuple[int, ...]:
    """Bytes of each piece of a stream of ``total`` bytes. Raises UsageError where there would be too many."""
    count = -(-total // split)
    if count > MOST_PIECES:
        least = -(-total // MOST_PIECES)
        raise UsageError(
            f"{total} bytes would be {count} pieces, more than {MOST_PIECES}",
            cause=f"a piece has {split} bytes",
            do=f"larger pieces: --split {-(-least // 10**6)}MB",
        )
    return tuple(min(split, total - number * split) for number in range(count))


class Stream:
    """Parts one after the other, bytes or whole files, readable from any place on without what is before it."""

    def __init__(self, parts: Iterable[bytes | Path]) -> None:
        self._parts = [(part, len(part) if isinstance(part, bytes) else part.stat().st_size) for part in parts]
        self.size = sum(size for _, size in self._parts)

    def read(self, start: int, count: int) -> Iterator[bytes]:
        """``count`` bytes from ``start`` on, in chunks; fewer where the stream ends before."""
        at = 0
        for part, size in self._parts:
            first, last = max(start, at), min(start + count, at + size)
            if first < last:
                yield from _range(part, first - at, last - first)
            at += size


def _range(part: bytes | Path, start: int, count: int) -> Iterator[bytes]:
    if isinstance(part, bytes):
        yield part[start : start + count]
        return
    with part.open("rb") as file:
        file.seek(start)
        yield from chunks_of(file, count)


def chunks_of(file: io.BufferedIOBase | io.RawIOBase, count: int) -> Iterator[bytes]:
    """The next ``count`` bytes of a file; fewer where it ends before."""
    while count and (chunk := file.read(min(_CHUNK, count))):
        count -= len(chunk)
        yield chunk


def write_pieces(stream: Stream, folder: Path, split: int, say: Say = lambda _: None) -> tuple[Piece, ...]:
    """Write a stream as pieces into a folder; one that is whole already is read, and not written again.

    Pieces of a longer stream that lie there go away. Raises UsageError for too many pieces, OSError where the disk
    refuses; what was written before stays.
    """
    sizes = sizes_of_pieces(stream.size, split)
    made = []
    for number, size in enumerate(sizes, 1):
        path = folder / piece_name(number)
        digest = hashlib.sha256()
        for chunk in stream.read((number - 1) * split, size):
            digest.update(chunk)
        piece = Piece(path.name, size, digest.hexdigest())
        if fault_of(folder, piece) is None:
            say(f"{path.name} of {len(sizes)}: whole already")
        else:
            _write(path, stream.read((number - 1) * split, size))
            say(f"{path.name} of {len(sizes)}: written")
        made.append(piece)
    names = {piece.name for piece in made}
    for path in folder.glob("piece-[0-9][0-9][0-9][0-9].part"):
        if path.name not in names:
            path.unlink()
    return tuple(made)


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    """A whole file or none: what a killed run leaves has another name, and the next one writes over it."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as out:
        for chunk in chunks:
            out.write(chunk)
    temporary.replace(path)


def fault_of(folder: Path, piece: Piece) -> Fault | None:
    """What is wrong with a piece in a folder; None for a whole one. Raises OSError where it may not be read."""
    path = folder / piece.name
    try:
        found = path.stat()
    except FileNotFoundError:
        return Fault(piece.name, missing=True, why="missing")
    if not stat.S_ISREG(found.st_mode):
        return Fault(piece.name, missing=False, why="no file")
    if found.st_size != piece.size:
        return Fault(piece.name, missing=False, why=f"{found.st_size} bytes instead of {piece.size}")
    with path.open("rb") as file:
        digest = sha256_of(file)
    if digest != piece.sha256:
        return Fault(piece.name, missing=False, why=f"its SHA-256 is {digest[:16]}…, it should be {piece.sha256[:16]}…")
    return None


class Joined(io.RawIOBase):
    """The pieces of a folder as one file to read from, at any place; one is open at a time."""

    def __init__(self, folder: Path, pieces: Sequence[Piece]) -> None:
        self._folder, self._pieces = folder, pieces
        self._starts = [sum(piece.size for piece in pieces[:number]) for number in range(len(pieces))]
        self._at = 0
        self._open: tuple[int, io.BufferedReader] | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the beginning."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the beginning")
        self._at = offset
        return self._at

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` with what the piece at this place still has."""
        room = memoryview(buffer)  # type: ignore[arg-type]
        number = self._number()
        if number is None:
            return 0
        within = self._at - self._starts[number]
        file = self._file(number)
        file.seek(within)
        count = file.readinto(room[: min(len(room), self._pieces[number].size - within)])
        self._at += count
        return count

    def _number(self) -> int | None:
        for number, (start, piece) in enumerate(zip(self._starts, self._pieces, strict=True)):
            if start <= self._at < start + piece.size:
                return number
        return None

    def _file(self, number: int) -> io.BufferedReader:
        if self._open is None or self._open[0] != number:
            self.close_piece()
            self._open = number, (self._folder / self._pieces[number].name).open("rb")
        return self._open[1]

    def close_piece(self) -> None:
        """Close the piece that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        """Close it, and the piece that is open."""
        self.close_piece()
        super().close()
