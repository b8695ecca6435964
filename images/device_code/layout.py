"""The headers of an x86-64 shared library that slimming has to know and rewrite, and nothing more."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

Data = bytes | mmap

PAGE = 0x1000  # x86-64 has no other page size that a loader maps files with
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_PHDR, PT_GNU_PROPERTY = 1, 2, 4, 6, 0x6474E553
SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM = 2, 8, 11
SHF_ALLOC, SHF_COMPRESSED = 2, 0x800
DEVICE_SECTIONS = (".nv_fatbin", "__nv_relfatbin")
WRAPPER_SECTION = ".nvFatBinSegment"

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
EHDR_SIZE = _EHDR.size
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")


class SlimRefused(Exception):
    """A file that slimming does not understand well enough to change: why, and at which byte of the file."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(f"{reason} (at byte {offset:#x})")
        self.reason = reason
        self.offset = offset


@dataclass(frozen=True)
class Segment:
    """One program header; offsets and sizes in bytes."""

    kind: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int

    @property
    def end(self) -> int:
        """The file offset behind its last byte."""
        return self.offset + self.filesz

    def pack(self) -> bytes:
        """As it stands in the file."""
        return _PHDR.pack(
            self.kind, self.flags, self.offset, self.vaddr, self.paddr, self.filesz, self.memsz, self.align
        )


@dataclass(frozen=True)
class Section:
    """One section header and the name it refers to."""

    name: str
    name_at: int
    kind: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int

    @property
    def end(self) -> int:
        """The file offset behind its last byte."""
        return self.offset + (0 if self.kind == SHT_NOBITS else self.size)

    def pack(self) -> bytes:
        """As it stands in the file."""
        return _SHDR.pack(
            *(self.name_at, self.kind, self.flags, self.addr, self.offset),
            *(self.size, self.link, self.info, self.align, self.entsize),
        )


@dataclass(frozen=True)
class Layout:
    """All headers of one library; ``size`` is the file's, in bytes."""

    size: int
    phoff: int
    shoff: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]

    def loads(self) -> list[Segment]:
        """What the loader maps, in file order of the headers."""
        return [segment for segment in self.segments if segment.kind == PT_LOAD]

    def file_offset(self, vaddr: int, length: int) -> int:
        """Where ``length`` bytes at ``vaddr`` stand in the file. Raises SlimRefused if they do not."""
        for segment in self.loads():
            if segment.vaddr <= vaddr and vaddr + length <= segment.vaddr + segment.filesz:
                return segment.offset + vaddr - segment.vaddr
        raise SlimRefused(f"address {vaddr:#x} is in no loaded part of the file", self.phoff)


def check_whole(data: Data) -> None:
    """Raises SlimRefused for a 64-bit ELF file, of whatever machine, that ends before its headers say."""
    size = len(data)
    if size < EHDR_SIZE or data[:6] != b"\x7fELF\x02\x01":
        return
    _, _, _, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = _EHDR.unpack(data[:EHDR_SIZE])
    tables = max(phoff + phentsize * phnum, shoff + shentsize * shnum)
    if tables > size:
        raise SlimRefused(f"cut short: a header table runs past the end of the file, to byte {tables} of {size}", size)
    if phentsize != _PHDR.size:
        return
    for index in range(phnum):
        segment = Segment(*_PHDR.unpack_from(data, phoff + index * _PHDR.size))
        if segment.kind == PT_LOAD and segment.end > size:
            raise SlimRefused(f"cut short: a segment runs past the end of the file, to {segment.end} of {size}", size)


def read_layout(data: Data) -> Layout:
    """The headers of ``data``. Raises SlimRefused for what is no well-formed x86-64 shared library."""
    size = len(data)
    if size < _EHDR.size or data[:4] != b"\x7fELF":
        raise SlimRefused("not an ELF file")
    ident, kind, machine, _, _, phoff, shoff, _, ehsize, phentsize, phnum, shentsize, shnum, shstrndx = _EHDR.unpack(
        data[: _EHDR.size]
    )
    if ident[4:6] != b"\x02\x01" or machine != 62 or kind != 3 or ehsize != _EHDR.size:
        raise SlimRefused("not a 64-bit x86-64 shared library", 4)
    if phentsize != _PHDR.size or shentsize != _SHDR.size or not phnum or not shnum or phnum == 0xFFFF:
        raise SlimRefused("header tables of an unknown shape", 54)
    if phoff + phnum * _PHDR.size > size or shoff + shnum * _SHDR.size > size or shstrndx >= shnum:
        raise SlimRefused("a header table runs past the end of the file", 32)
    segments = tuple(Segment(*_PHDR.unpack_from(data, phoff + index * _PHDR.size)) for index in range(phnum))
    raw = [_SHDR.unpack_from(data, shoff + index * _SHDR.size) for index in range(shnum)]
    names_at, names_size = raw[shstrndx][4], raw[shstrndx][5]
    if names_at + names_size > size or names_size > 1 << 24:
        raise SlimRefused("the section names run past the end of the file", shoff)
    names = bytes(data[names_at : names_at + names_size])
    sections = tuple(Section(_name(names, one[0], shoff), *one) for one in raw)
    layout = Layout(size, phoff, shoff, segments, sections)
    _check(layout)
    return layout


def device_sections(layout: Layout) -> Iterator[tuple[int, Section]]:
    """Index and header of each section that holds device code."""
    for index, section in enumerate(layout.sections):
        if section.name in DEVICE_SECTIONS and section.kind != SHT_NOBITS and section.size:
            yield index, section


def _name(names: bytes, at: int, shoff: int) -> str:
    end = names.find(b"\0", at) if at < len(names) else -1
    if end < 0:
        raise SlimRefused("a section has no name", shoff)
    return names[at:end].decode("latin-1")


def _check(layout: Layout) -> None:
    """Bounds, and what the loader itself asks for: PT_LOADs ascending, apart, and congruent to their addresses."""
    for section in layout.sections[1:]:
        if section.end > layout.size:
            raise SlimRefused(f"section {section.name} runs past the end of the file", layout.shoff)
    behind = 0
    for segment in layout.segments:
        if segment.end > layout.size:
            raise SlimRefused("a segment runs past the end of the file", layout.phoff)
        if segment.kind != PT_LOAD:
            continue
        if segment.vaddr < behind or segment.memsz < segment.filesz or segment.vaddr + segment.memsz >= 1 << 63:
            raise SlimRefused("segments overlap or are out of order", layout.phoff)
        if (segment.vaddr - segment.offset) % PAGE or segment.align % PAGE or not segment.align:
            raise SlimRefused("a segment is not aligned to pages", layout.phoff)
        behind = segment.vaddr + segment.memsz
