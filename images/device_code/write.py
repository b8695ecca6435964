"""Write a changed library over the old one: beside it, looked at again, then put in its place; whole or not at all."""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.device_code.layout import SlimRefused

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Piece:
    """A run of the new file: ``size`` bytes of the old one from ``source``, or ``literal``, or zeros if neither."""

    size: int
    source: int | None = None
    literal: bytes = b""


@contextmanager
def mapped(descriptor: int) -> Iterator[mmap.mmap]:
    """The file's bytes, read only and not loaded."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        yield data


def write_over(
    path: Path,
    source: int,
    pieces: Sequence[Piece],
    patches: Sequence[tuple[int, bytes]],
    prove: Callable[[int], None],
) -> None:
    """Replace ``path``, open as ``source``, by ``pieces`` with ``patches`` (offset in the new file, bytes) on them.

    ``prove`` is given the new file's descriptor and raises SlimRefused if it is not as planned. Mode, owner and times
    stay. On any error the old file is as it was.
    """
    status = os.fstat(source)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as out:
            for piece in pieces:
                _copy(source, piece, out.fileno())
            for at, content in patches:
                os.pwrite(out.fileno(), content, at)
            if os.fstat(out.fileno()).st_size != sum(piece.size for piece in pieces):
                raise SlimRefused("the new file is not as long as planned")
            prove(out.fileno())
            os.fchmod(out.fileno(), stat.S_IMODE(status.st_mode))
            if os.geteuid() == 0:
                os.fchown(out.fileno(), status.st_uid, status.st_gid)
                os.fchmod(out.fileno(), stat.S_IMODE(status.st_mode))
            os.utime(out.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(out.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _copy(source: int, piece: Piece, out: int) -> None:
    """Write ``piece``, a few MB at a time."""
    done = 0
    while done < piece.size:
        size = min(_CHUNK, piece.size - done)
        if piece.source is not None:
            content = os.pread(source, size, piece.source + done)
        else:
            content = piece.literal[done : done + size] or bytes(size)
        if not content:
            raise SlimRefused("the file became shorter while it was read", (piece.source or 0) + done)
        done += os.write(out, content)
