"""Write a changed library over the old one: beside it, looked at again, then put in its place; whole or not at all."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.device_code.layout import SlimRefused
from images.device_code.record import Owner, begin_part, descriptor_hash, keep_attributes, update_record

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
    owner: Owner | None = None,
) -> None:
    """Replace ``path``, open as ``source``, by ``pieces`` with ``patches`` (offset in the new file, bytes) on them.

    ``prove`` is given the new file's descriptor and raises SlimRefused if it is not as planned. Mode, owner, extended
    attributes and times stay. The row of ``owner`` is changed just before the file: a run that is killed between leaves
    its part, and the next run does both again. On any error the old file is as it was, and its row.
    """
    path = path.resolve()  # not the link that leads to it
    status = os.fstat(source)
    descriptor, part = begin_part(path)
    try:
        with os.fdopen(descriptor, "w+b") as out:
            for piece in pieces:
                _copy(source, piece, out.fileno())
            for at, content in patches:
                os.pwrite(out.fileno(), content, at)
            size = sum(piece.size for piece in pieces)
            if os.fstat(out.fileno()).st_size != size:
                raise SlimRefused("the new file is not as long as planned")
            prove(out.fileno())
            keep_attributes(source, out.fileno())
            os.utime(out.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(out.fileno())
            if owner is not None:
                update_record(owner, descriptor_hash(out.fileno()), size)
        try:
            os.replace(part, path)
        except OSError:
            if owner is not None:
                update_record(owner, owner.digest, owner.size)
            raise
    except OSError as error:
        error.filename = error.filename or str(path)  # a call by descriptor names none
        raise
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
