"""Named sections of one ELF file, from its headers alone; every offset is checked before it is followed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from mmap import mmap

# Whatever struct can read from: a file mapped into memory, a member of a wheel, bytes of a test.
View = bytes | bytearray | mmap | memoryview

MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PROGBITS, _NOBITS = 1, 8
_ALLOC, _EXECUTABLE, _COMPRESSED = 2, 4, 0x800
_NO_DATA = (".eh_frame", ".gcc_except_table", ".interp", ".comment")
_MOST_SECTIONS, _MOST_NAMES, _LONGEST_NAME = 1 << 20, 1 << 26, 4096


class FatbinError(Exception):
    """A file that is not what its headers say: ``what`` was expected, and the ``offset`` in bytes where it was not."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what} (at byte {offset:#x})")
        self.what = what
        self.offset = offset


class UnknownForm(FatbinError):
    """Device code of a form that is not known: what cards it is for cannot be told."""


@dataclass(frozen=True, slots=True)
class Span:
    """A section's place: file offset, virtual address (0 in a relocatable file) and size, in bytes."""

    name: str
    offset: int
    address: int
    size: int


def is_elf(view: View) -> bool:
    """Whether it is a 64-bit little-endian ELF file: the only kind that device code is linked into today."""
    return len(view) >= _HEADER.size and bytes(view[:6]) == MAGIC + b"\x02\x01"


def find_sections(view: View, names: Iterable[str]) -> tuple[Span, ...]:
    """The sections of these names that have bytes in the file, by offset. ``view`` must be `is_elf`.

    Raises FatbinError where a table or a wanted section is not inside the file, or where two of them overlap.
    """
    wanted = frozenset(names)
    found = [_span(name, header, len(view), at) for name, header, at in _headers(view) if name in wanted]
    return _apart(found)


def data_sections(view: View) -> tuple[Span, ...]:
    """Sections that a program loads as data, by offset: no code, no tables of the linker's, no notes.

    ``view`` must be `is_elf`. Raises FatbinError where the table of sections is not inside the file; a section that is
    not is left out.
    """
    found = [
        Span(name, header[4], header[3], header[5])
        for name, header, _ in _headers(view)
        if header[1] == _PROGBITS
        and header[2] & _ALLOC
        and not header[2] & (_EXECUTABLE | _COMPRESSED)
        and header[4] + header[5] <= len(view)
        and not name.startswith(_NO_DATA)
    ]
    return tuple(sorted(found, key=lambda span: (span.offset, span.size)))


def _headers(view: View) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Name, header and its offset of each section that has bytes in the file. Raises FatbinError."""
    size = len(view)
    fields = _HEADER.unpack_from(view, 0)
    shoff, shentsize, shnum, shstrndx = fields[6], fields[11], fields[12], fields[13]
    if not shoff:
        return
    if shentsize != _SECTION.size:
        raise FatbinError(f"section headers of {_SECTION.size} bytes expected, not {shentsize}", 58)
    if shoff > size - _SECTION.size:
        raise FatbinError(f"section headers expected inside the file of {size} bytes, not at {shoff:#x}", 40)
    first = _SECTION.unpack_from(view, shoff)
    shnum = shnum or first[5]  # more than 65279 sections: the first header holds the numbers
    shstrndx = first[6] if shstrndx == 0xFFFF else shstrndx
    if shnum > _MOST_SECTIONS or shoff + shnum * _SECTION.size > size:
        raise FatbinError(f"{shnum} section headers expected inside the file of {size} bytes", shoff)
    if shstrndx >= shnum:
        return  # nameless sections
    table = _SECTION.unpack_from(view, shoff + shstrndx * _SECTION.size)
    names_at, names_end = table[4], table[4] + table[5]
    if names_end > size:
        raise FatbinError(f"section names expected inside the file of {size} bytes", shoff + shstrndx * 64 + 24)
    names = bytes(view[names_at : min(names_end, names_at + _MOST_NAMES)])
    headers = bytes(view[shoff : shoff + shnum * _SECTION.size])
    for index, header in enumerate(_SECTION.iter_unpack(headers)):
        end = names.find(b"\0", header[0])
        if header[1] != _NOBITS and end >= 0 and end - header[0] <= _LONGEST_NAME:
            name = names[header[0] : end].decode("latin-1")
            yield name, header, shoff + index * _SECTION.size


def _span(name: str, header: tuple[int, ...], size: int, where: int) -> Span:
    if header[2] & _COMPRESSED:
        raise UnknownForm(f"{name} expected as it is, not compressed", where + 8)
    if header[4] + header[5] > size:
        raise FatbinError(f"{name} expected inside the file of {size} bytes", where + 24)
    return Span(name, header[4], header[3], header[5])


def _apart(found: list[Span]) -> tuple[Span, ...]:
    """By offset. Two that share bytes would be read twice, and many such pairs for ever."""
    found.sort(key=lambda span: (span.offset, span.size))
    for before, after in pairwise(found):
        if before.offset + before.size > after.offset:
            raise FatbinError(f"{after.name} expected behind {before.name}, not across it", after.offset)
    return tuple(found)
