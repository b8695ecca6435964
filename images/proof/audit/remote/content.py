"""The device code of one file of a layer: from a stream that goes by, or from parts of it that are fetched.

Of a library that can be read in part only headers and data are fetched, into a sparse file of its size: what the reader
of device code looks at (images/device_code/fatbin.py). What it does not look at stays zeros.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import tempfile
from bisect import bisect_right
from collections.abc import Callable
from typing import IO, Protocol

from images.device_code import containers
from images.device_code.archive import MAGIC as ARCHIVE_MAGIC
from images.device_code.bare import is_cubin
from images.device_code.elf import MAGIC, FatbinError, Span, data_sections, find_sections, is_elf
from images.device_code.fatbin import SECTIONS, WRAPPERS, Library, read
from images.device_code.sources import may_hold_code
from images.device_code.zip_bounds import MOST_OF_ONE
from images.proof.audit.remote.faults import LayerFault
from images.proof.audit.remote.layer import Finding

LEAST = 64  # bytes of the smallest file that is looked at
_HELD = 4 << 20  # a smaller file stays in memory
_SMALL = 512 << 10  # a smaller one is fetched whole: that is one request, its parts would be three
_CHUNK = 1 << 20
_HEADS = (MAGIC, ARCHIVE_MAGIC, b"MZ", b"\x50\xed\x55\xba", b"\xed\x43\x4e\x7f")
_SUFFIXES = (".ptx", ".cubin", ".fatbin")
_LOOK = 4096  # bytes that are read at once where a container may begin
_SECTION = 64
_LINKER = ".rela.dyn"


class Parts(Protocol):
    """A file of which any part can be read."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def read(self, begin: int, length: int) -> bytes:
        """So many bytes from ``begin`` on, all of which are in the file."""


def by_name(name: str) -> bool:
    """Whether a file of this name is nothing but device code."""
    return name.lower().endswith(_SUFFIXES)


def by_head(head: bytes) -> bool:
    """Whether a file that begins so may hold device code."""
    return head.startswith(_HEADS)


class Reader:
    """Reads files one at a time, the large ones through one temporary file, which is gone when this is closed."""

    def __init__(self) -> None:
        self._spare = tempfile.NamedTemporaryFile(prefix="cardstock-audit-")  # noqa: SIM115  (closed by `close`)

    def close(self) -> None:
        """Drop the temporary file."""
        self._spare.close()

    def stream(self, name: str, head: bytes, rest: IO[bytes], size: int) -> Finding | None:
        """What a file holds of which ``head`` was read, its first 64 bytes; None for one that counts for nothing.

        Raises LayerFault for one that is too large, or cut short.
        """
        _bounded(name, size)
        if size <= _HELD:
            data = head + rest.read(size - len(head))
            if len(data) != size:
                raise LayerFault(f"it is cut short in {name[:200]!r}")
            return _judged(lambda: read(data, name))
        self._empty()
        self._spare.write(head)
        shutil.copyfileobj(rest, self._spare, _CHUNK)
        self._spare.flush()
        if self._spare.tell() != size:
            raise LayerFault(f"it is cut short in {name[:200]!r}")
        return _judged(lambda: read(self._spare.name, name))

    def parts(self, name: str, file: Parts) -> Finding | None:
        """What a file holds of which parts can be read; None for one that counts for nothing, or is none by name."""
        _bounded(name, file.size)
        head = file.read(0, min(LEAST, file.size))
        if not may_hold_code(name) or not (by_head(head) or by_name(name)):
            return None
        self._empty()
        self._spare.truncate(file.size)
        sparse = _Sparse(file, self._spare)
        if file.size <= _SMALL:
            sparse.fill(0, file.size)
        elif is_cubin(head):
            sparse.fill(0, LEAST)
        elif is_elf(head):
            self._fetch_elf(sparse, file.size)
        elif head.startswith(MAGIC):  # of 32 bits, or of another order of bytes: it holds nothing that is read
            sparse.fill(0, LEAST)
        else:
            sparse.fill(0, file.size)
        self._spare.flush()
        return _judged(lambda: read(self._spare.name, name))

    def _empty(self) -> None:
        self._spare.seek(0)
        self._spare.truncate()

    def _fetch_elf(self, sparse: _Sparse, size: int) -> None:
        """Fetch what is looked at of an ELF file; all of it where its tables are not as they should be."""
        sparse.fill(0, LEAST)
        (table,) = struct.unpack_from("<Q", sparse.head, 40)
        entry, count, names = struct.unpack_from("<HHH", sparse.head, 58)
        try:
            self._fetch_tables(sparse, size, table, entry, count, names)
            with mmap.mmap(self._spare.fileno(), 0, access=mmap.ACCESS_READ) as view:
                code = find_sections(view, SECTIONS)
                spans = [*find_sections(view, (WRAPPERS, _LINKER)), *data_sections(view)]
        except (FatbinError, struct.error, ValueError):
            sparse.fill(0, size)
            return
        for span in sorted(spans, key=lambda span: span.offset):
            if span.name not in SECTIONS:
                sparse.fill(span.offset, span.size)
        for span in code:
            if not _fetch_containers(sparse, span):
                sparse.fill(span.offset, span.size)

    def _fetch_tables(self, sparse: _Sparse, size: int, table: int, entry: int, count: int, names: int) -> None:
        """The table of sections, and the names in it. Raises ValueError where it is not an ordinary one."""
        if not table:
            return
        if entry != _SECTION or not count or names >= count or table + count * _SECTION > size:
            raise ValueError("an unusual table of sections")
        sparse.fill(table, count * _SECTION)
        fields = struct.unpack("<IIQQQQIIQQ", sparse.again(table + names * _SECTION, _SECTION))
        if fields[4] + fields[5] > size:
            raise ValueError("names outside of the file")
        sparse.fill(fields[4], fields[5])


def _fetch_containers(sparse: _Sparse, span: Span) -> bool:
    """Fetch the headers of a section's containers and entries; whether it was possible to walk along all of them."""
    at, end = span.offset, span.offset + span.size
    entries = 0
    while at < end:
        look = min(_LOOK, end - at)
        sparse.fill(at, look)
        chunk = sparse.again(at, look)
        rest = chunk.lstrip(b"\0")
        if not rest:
            at += look
            continue
        at += (look - len(rest)) // 8 * 8
        if end - at < 16:
            return False
        sparse.fill(at, 16)
        head = sparse.again(at, 16)
        (size,) = struct.unpack_from("<Q", head, 8)
        stop = at + 16 + size
        if head[: len(containers.MAGIC)] != containers.MAGIC or stop > end:
            return False
        at += 16
        while at < stop:
            entries += 1
            if stop - at < LEAST or entries > containers.MOST_ENTRIES:
                return False
            sparse.fill(at, LEAST)
            header, payload = struct.unpack_from("<IQ", sparse.again(at, LEAST), 4)
            if header < LEAST or header + payload > stop - at:
                return False
            at += header + payload
    return True


class _Sparse:
    """The sparse copy of a file: parts are fetched once, however often they are asked for."""

    def __init__(self, file: Parts, copy: IO[bytes]) -> None:
        self._file, self._copy = file, copy
        self._begins: list[int] = []
        self._ends: list[int] = []

    @property
    def head(self) -> bytes:
        """The first 64 bytes."""
        return self.again(0, LEAST)

    def fill(self, begin: int, length: int) -> None:
        """Have these bytes in the copy; what lies behind the file's end is not there."""
        end = min(begin + length, self._file.size)
        while begin < end:
            at = bisect_right(self._begins, begin)
            if at and self._ends[at - 1] > begin:
                begin = self._ends[at - 1]
                continue
            stop = min(end, self._begins[at]) if at < len(self._begins) else end
            self._fetch(begin, stop)
            if at and self._ends[at - 1] == begin:
                self._ends[at - 1] = stop
            else:
                self._begins.insert(at, begin)
                self._ends.insert(at, stop)
            begin = stop

    def again(self, begin: int, length: int) -> bytes:
        """Bytes that were fetched."""
        self._copy.seek(begin)
        return self._copy.read(length)

    def _fetch(self, begin: int, stop: int) -> None:
        while begin < stop:
            data = self._file.read(begin, min(_CHUNK * 8, stop - begin))
            self._copy.seek(begin)
            self._copy.write(data)
            self._copy.flush()
            begin += len(data)


def _bounded(name: str, size: int) -> None:
    if size > MOST_OF_ONE:
        raise LayerFault(f"{name[:200]!r} has {size} bytes: no library is as large")


def _judged(reads: Callable[[], Library]) -> Finding | None:
    try:
        found = reads()
    except FatbinError as error:
        return error
    return found if found.form else None
