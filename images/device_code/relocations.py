"""Who points at a container: relative relocations (RELA and RELR), and symbols."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from images.device_code.layout import (
    PT_DYNAMIC,
    SHT_DYNSYM,
    SHT_SYMTAB,
    WRAPPER_SECTION,
    Data,
    Layout,
    Section,
    SlimRefused,
)

R_X86_64_RELATIVE = 8
_DT_PLTRELSZ, _DT_RELA, _DT_RELASZ, _DT_RELAENT, _DT_REL, _DT_JMPREL = 2, 7, 8, 9, 17, 23
_DT_RELRSZ, _DT_RELR, _DT_RELRENT = 35, 36, 37
_ANDROID = range(0x6000000F, 0x60000013)  # packed tables of another loader
_WORD = struct.Struct("<Q")
_RELA = struct.Struct("<QQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_WRAPPER_MAGIC, _WRAPPER_SIZE = 0x466243B1, 24


@dataclass(frozen=True)
class Pointer:
    """A word of the file that holds the address of a container: the word's own offset, and what it points at."""

    offset: int
    target: int


def pointers(data: Data, layout: Layout, section: Section) -> tuple[list[Pointer], set[int]]:
    """Every word that leads into ``section``, and the addresses that the loader fills with such a pointer.

    Raises SlimRefused where a table is of an unknown kind, where the loader would write into the section, or where
    another way leads into it.
    """
    tags = dict(_dynamic(data, layout))
    start, end = section.addr, section.addr + section.size
    for tag, value in tags.items():
        if tag == _DT_REL or tag in _ANDROID:
            raise SlimRefused("relocations of an unknown kind", layout.phoff)
        if start <= value < end and tag in (_DT_RELA, _DT_RELR, _DT_JMPREL, 4, 5, 6, 12, 13, 25, 26, 0x6FFFFEF5):
            raise SlimRefused("the loader's own tables lie in the section of device code", section.offset)
    found: list[Pointer] = []
    slots: set[int] = set()
    for table, size_tag in ((_DT_RELA, _DT_RELASZ), (_DT_JMPREL, _DT_PLTRELSZ)):
        if table in tags:
            _rela(data, layout, tags[table], tags.get(size_tag, 0), (start, end), found, slots)
    if _DT_RELR in tags:
        if tags.get(_DT_RELRENT, 8) != 8:
            raise SlimRefused("a RELR table of an unknown shape", layout.phoff)
        _relr(data, layout, tags[_DT_RELR], tags.get(_DT_RELRSZ, 0), (start, end), found, slots)
    return found, slots


def _dynamic(data: Data, layout: Layout) -> Iterator[tuple[int, int]]:
    for segment in layout.segments:
        if segment.kind == PT_DYNAMIC:
            raw = bytes(data[segment.offset : segment.offset + segment.filesz // 16 * 16])
            for tag, value in struct.iter_unpack("<QQ", raw):
                if tag == 0:
                    return
                yield tag, value
            return
    raise SlimRefused("a shared library without a dynamic segment", layout.phoff)


def _table(data: Data, layout: Layout, vaddr: int, size: int, entry: int) -> tuple[int, bytes]:
    if size % entry or size > layout.size:
        raise SlimRefused("a relocation table of an unknown shape", layout.phoff)
    offset = layout.file_offset(vaddr, size)
    return offset, bytes(data[offset : offset + size])


def _rela(
    data: Data, layout: Layout, vaddr: int, size: int, span: tuple[int, int], found: list[Pointer], slots: set[int]
) -> None:
    start, end = span
    at, raw = _table(data, layout, vaddr, size, _RELA.size)
    for index, (slot, info, addend) in enumerate(_RELA.iter_unpack(raw)):
        if start <= slot < end:
            raise SlimRefused("the loader writes into the section of device code", at + index * _RELA.size)
        if start <= addend < end and info & 0xFFFFFFFF == R_X86_64_RELATIVE:
            found.append(Pointer(at + index * _RELA.size + 16, addend))
            slots.add(slot)
            place = layout.file_offset(slot, 8)
            if _WORD.unpack_from(data, place)[0] == addend:  # some linkers write it there as well
                found.append(Pointer(place, addend))


def _relr(
    data: Data, layout: Layout, vaddr: int, size: int, span: tuple[int, int], found: list[Pointer], slots: set[int]
) -> None:
    start, end = span
    at, raw = _table(data, layout, vaddr, size, 8)
    base = 0
    for (word,) in _WORD.iter_unpack(raw):
        if word & 1:
            places = [base + 8 * bit for bit in range(63) if word >> (bit + 1) & 1]
            base += 63 * 8
        else:
            places, base = [word], word + 8
        for slot in places:
            if start <= slot < end:
                raise SlimRefused("the loader writes into the section of device code", at)
            place = layout.file_offset(slot, 8)
            (target,) = _WORD.unpack_from(data, place)
            if start <= target < end:
                found.append(Pointer(place, target))
                slots.add(slot)


def check_wrappers(data: Data, layout: Layout, slots: set[int]) -> None:
    """Every wrapper of `.nvFatBinSegment` must be filled by a relocation that was found, or SlimRefused."""
    for section in layout.sections:
        if section.name != WRAPPER_SECTION:
            continue
        if section.size % _WRAPPER_SIZE:
            raise SlimRefused("wrappers of an unknown size", section.offset)
        for at in range(section.offset, section.end, _WRAPPER_SIZE):
            magic, version = struct.unpack_from("<II", data, at)
            if magic != _WRAPPER_MAGIC or version not in (1, 2):
                raise SlimRefused("a wrapper of an unknown kind", at)
            if section.addr + at - section.offset + 8 not in slots:
                raise SlimRefused("a wrapper that no relocation fills", at + 8)


def symbols(data: Data, layout: Layout, index: int, moved: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """(offset of the value, new value) of each symbol in section ``index``; ``moved`` says old -> new address.

    Raises SlimRefused for an exported symbol there, and for one that names no container.
    """
    for section in layout.sections:
        if section.kind not in (SHT_SYMTAB, SHT_DYNSYM):
            continue
        raw = bytes(data[section.offset : section.offset + section.size // _SYMBOL.size * _SYMBOL.size])
        for number, (_, info, _, place, value, _) in enumerate(_SYMBOL.iter_unpack(raw)):
            if place != index or info & 15 == 3:
                continue
            at = section.offset + number * _SYMBOL.size + 8
            if section.kind == SHT_DYNSYM or value not in moved:
                raise SlimRefused("a symbol leads into the section of device code", at)
            yield at, moved[value]
