"""One ELF file as a loader maps it: addresses become offsets in the file, and names are read from its table of them.

Every offset is checked before it is followed. Source: System V ABI, chapter 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from images.device_code.elf import FatbinError, View

SYMBOL = struct.Struct("<IBBHQQ")
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PT_LOAD, _PT_DYNAMIC, _SHT_DYNSYM = 1, 2, 11
_STRTAB, _STRSZ = 5, 10
_MOST_ENTRIES, _MOST_SEGMENTS = 1 << 16, 1 << 16
_MOST_NAMES, _LONGEST_NAME, _MOST_TEXT = 1 << 28, 1 << 20, 1 << 28


class Image:
    """Addresses of the loaded file, as offsets in it."""

    def __init__(self, view: View) -> None:
        self.view, self.size = view, len(view)
        self.header = _HEADER.unpack_from(view, 0)
        phoff, phentsize, phnum = self.header[5], self.header[9], self.header[10]
        if phnum and phentsize != _SEGMENT.size:
            raise FatbinError(f"segments of {_SEGMENT.size} bytes expected, not {phentsize}", 54)
        if phnum > _MOST_SEGMENTS or phoff + phnum * _SEGMENT.size > self.size:
            raise FatbinError(f"{phnum} segments expected inside the file of {self.size} bytes", phoff)
        table = bytes(view[phoff : phoff + phnum * _SEGMENT.size])
        self.segments = list(_SEGMENT.iter_unpack(table))
        self.loads = [one for one in self.segments if one[0] == _PT_LOAD]

    def dynamic(self, entry: int) -> tuple[int, int] | None:
        """Offset and size of the dynamic segment, whose entries have ``entry`` bytes."""
        for kind, _, offset, _, _, filesz, _, _ in self.segments:
            if kind == _PT_DYNAMIC:
                if offset + filesz > self.size or filesz > _MOST_ENTRIES * entry:
                    raise FatbinError(f"a dynamic segment expected inside the file of {self.size} bytes", offset)
                return offset, filesz
        return None

    def offset(self, address: int, size: int, what: str) -> int:
        """Where ``size`` bytes at ``address`` lie in the file."""
        for _, _, offset, vaddr, _, filesz, _, _ in self.loads:
            if vaddr <= address and address + size <= vaddr + filesz:
                at: int = offset + address - vaddr
                if at + size <= self.size:
                    return at
        raise FatbinError(f"{what} expected in a segment of the file, not at address {address:#x}", 32)

    def unpack(self, form: struct.Struct, address: int, what: str) -> tuple[int, ...]:
        return form.unpack_from(self.view, self.offset(address, form.size, what))

    def table(self, form: struct.Struct, address: int, count: int, what: str) -> Iterator[tuple[int, ...]]:
        at = self.offset(address, count * form.size, what)
        return form.iter_unpack(bytes(self.view[at : at + count * form.size]))

    def dynsym_count(self, address: int) -> int | None:
        """How many symbols the table of sections says there are; None without such a table, or one that is damaged."""
        shoff, shentsize, shnum = self.header[6], self.header[11], self.header[12]
        if not shoff or shentsize != _SECTION.size or shoff + shnum * _SECTION.size > self.size:
            return None
        for header in _SECTION.iter_unpack(bytes(self.view[shoff : shoff + shnum * _SECTION.size])):
            if header[1] == _SHT_DYNSYM and header[3] == address:
                count: int = header[5] // SYMBOL.size
                return count
        return None


class Names:
    """The table of names. All that is read from it together is bounded: names may share bytes."""

    def __init__(self, image: Image, tags: Mapping[int, int]) -> None:
        size = tags.get(_STRSZ, 0)
        if size > _MOST_NAMES:
            raise FatbinError(f"at most {_MOST_NAMES} bytes of names expected, not {size}", 32)
        self.start = image.offset(tags[_STRTAB], size, "the names of symbols") if _STRTAB in tags else 0
        self.raw = bytes(image.view[self.start : self.start + size]) if _STRTAB in tags else b""
        self.read = 0

    def at(self, offset: int) -> str:
        end = self.raw.find(b"\0", offset, offset + _LONGEST_NAME) if offset < len(self.raw) else -1
        if end < 0:
            raise FatbinError("a name expected in the table of names", self.start + min(offset, len(self.raw)))
        self.read += end - offset
        if self.read > _MOST_TEXT:
            raise FatbinError(f"at most {_MOST_TEXT} bytes of names expected", self.start)
        return self.raw[offset:end].decode("latin-1")
