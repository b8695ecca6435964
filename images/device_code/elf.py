"""Named sections of one ELF file, from its headers alone; every offset is checked before it is followed."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from mmap import mmap

# Whatever struct can read from: a file mapped into memory, a member of a wheel, bytes of a test.
View = bytes | bytearray | mmap | memoryview

MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOBITS, _COMPRESSED = 8, 0x800
_MOST_SECTIONS = 1 << 20


class FatbinError(Exception):
    """A file that is not what its headers say: ``what`` was expected, and the ``offset`` in bytes where it was not."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what} (at byte {offset:#x})")
        self.what = what
        self.offset = offset


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
    size = len(view)
    fields = _HEADER.unpack_from(view, 0)
    shoff, shentsize, shnum, shstrndx = fields[6], fields[11], fields[12], fields[13]
    if not shoff:
        return ()
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
        return ()  # nameless sections
    table = _SECTION.unpack_from(view, shoff + shstrndx * _SECTION.size)
    names_at, names_end = table[4], table[4] + table[5]
    if names_end > size:
        raise FatbinError(f"section names expected inside the file of {size} bytes", shoff + shstrndx * 64 + 24)
    wanted = [(name, name.encode() + b"\0") for name in names]
    found = []
    headers = bytes(view[shoff : shoff + shnum * _SECTION.size])
    for index, header in enumerate(_SECTION.iter_unpack(headers)):
        at = names_at + header[0]
        for name, ends in wanted:
            if at + len(ends) <= names_end and view[at : at + len(ends)] == ends and header[1] != _NOBITS:
                found.append(_span(name, header, size, shoff + index * _SECTION.size))
    return _apart(found)


def _span(name: str, header: tuple[int, ...], size: int, where: int) -> Span:
    if header[2] & _COMPRESSED:
        raise FatbinError(f"{name} expected as it is, not compressed", where + 8)
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
