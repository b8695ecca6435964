"""Stripping: take out of a library what no loader maps: debug information, and the symbols for linkers and debuggers.

No byte that is loaded changes: segments keep their addresses and contents, and move in the file by whole pages only,
so that libraries which auditwheel or patchelf laid out anew (their tables stand behind the debug information) stay
whole; binutils' ``strip`` breaks those. What is lost: names of functions that are not exported, and line numbers, in a
native stack trace.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from images.device_code.layout import (
    PAGE,
    PT_LOAD,
    SHF_ALLOC,
    SHT_NOBITS,
    SHT_SYMTAB,
    Data,
    Layout,
    Section,
    SlimRefused,
    read_layout,
)
from images.device_code.record import Owner, owners
from images.device_code.rewrite import Gap, shifted
from images.device_code.slim import elf_files, is_nvidia
from images.device_code.write import Piece, mapped, write_over

_DEBUG = (".debug_", ".zdebug_", ".gnu.debuglto_", ".gnu_debugdata", ".gdb_index")
_SHT_NULL, _SHT_STRTAB, _SHT_RELA, _SHT_REL, _SHT_SYMTAB_SHNDX = 0, 3, 4, 9, 18
_SHDR_SIZE, _PHDR_SIZE, _EHDR_SIZE = 64, 56, 64
_SHSTRNDX_AT = 62
_INACTIVE = Section("", 0, _SHT_NULL, 0, 0, 0, 0, 0, 0, 0, 0)

Span = tuple[int, int]


@dataclass(frozen=True)
class Stripped:
    """The new file: ``pieces`` in order, then ``patches``. No pieces: there is nothing to take out."""

    pieces: tuple[Piece, ...] = ()
    patches: tuple[tuple[int, bytes], ...] = ()

    @property
    def size(self) -> int:
        """The new file's, in bytes."""
        return sum(piece.size for piece in self.pieces)


def strip_folder(folder: Path) -> tuple[int, int]:
    """Strip every library below ``folder`` but NVIDIA's own, with its row in RECORD: (libraries, bytes given back).

    A layout that is not known is left as it is. Raises OSError where a file cannot be read or replaced.
    """
    owned = owners(folder.resolve())
    count = freed = 0
    for path in elf_files(folder):
        owner = owned.get(path.resolve())
        if is_nvidia(path, owner):
            continue
        try:
            gained = strip_library(path, owner)
        except SlimRefused:
            continue
        count, freed = count + bool(gained), freed + gained
    return count, freed


def strip_library(path: Path, owner: Owner | None = None) -> int:
    """Strip one file in place, whole or not at all, with its row in RECORD: the bytes given back.

    0, and not written to, if there are none. Raises SlimRefused for a layout that is not known, OSError where the file
    cannot be read or replaced; then it is as it was.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size < _EHDR_SIZE:
            return 0
        with mapped(file.fileno()) as data:
            layout = read_layout(data)
            plan = make_plan(data)
        if not plan.pieces:
            return 0

        def prove(descriptor: int) -> None:
            with mapped(descriptor) as data:
                if make_plan(data).pieces or _loaded(read_layout(data)) != _loaded(layout):
                    raise SlimRefused("the new file does not read as planned")

        write_over(path, file.fileno(), plan.pieces, plan.patches, prove, owner)
    return status.st_size - plan.size


def _loaded(layout: Layout) -> list[tuple[object, ...]]:
    """What a loader does with a library, wherever its bytes stand in the file."""
    segments = [(one.kind, one.flags, one.vaddr, one.filesz, one.memsz) for one in layout.segments]
    sections = [
        (index, one.name, one.kind, one.addr, one.size)
        for index, one in enumerate(layout.sections)
        if one.flags & SHF_ALLOC
    ]
    return [*segments, *sections]


def make_plan(data: Data) -> Stripped:
    """What stripping ``data`` does; reads headers only. Raises SlimRefused."""
    layout = read_layout(data)
    (names_index,) = struct.unpack_from("<H", data, _SHSTRNDX_AT)
    dropped = _unloaded(layout, names_index)
    if not dropped:
        return Stripped()
    fixed = _fixed(layout)
    _check(data, layout, fixed, dropped)
    gaps = [
        Gap(start, end)
        for (_, before), (after, _) in pairwise(fixed)
        if (start := -(-before // PAGE) * PAGE) < (end := after // PAGE * PAGE)
    ]
    plan = _lay_out(layout, fixed, gaps, dropped)
    return plan if plan.size + PAGE <= layout.size else Stripped()


def _unloaded(layout: Layout, names_index: int) -> frozenset[int]:
    """Indexes of the sections that go."""
    sections = layout.sections
    idle = {index for index, one in enumerate(sections) if index and not one.flags & SHF_ALLOC and one.size}
    symbols = {index for index in idle if sections[index].kind == SHT_SYMTAB}
    names = {sections[index].link for index in symbols} & idle - {names_index}
    gone = symbols | {index for index in names if sections[index].kind == _SHT_STRTAB}
    gone |= {index for index in idle if sections[index].name.startswith(_DEBUG)}
    tables = (_SHT_RELA, _SHT_REL, _SHT_SYMTAB_SHNDX)
    gone |= {index for index in idle if sections[index].kind in tables and sections[index].link in symbols}
    if any(one.link in gone for index, one in enumerate(sections) if index not in gone):
        raise SlimRefused("a section that stays leads to one that would go", layout.shoff)
    return frozenset(gone)


def _fixed(layout: Layout) -> list[Span]:
    """What must stay as it stands: headers, segments and loaded sections, joined, by offset."""
    spans = [(0, _EHDR_SIZE), (layout.phoff, layout.phoff + _PHDR_SIZE * len(layout.segments))]
    spans += [(one.offset, one.end) for one in layout.segments if one.filesz]
    spans += [(one.offset, one.end) for one in layout.sections if one.flags & SHF_ALLOC and one.end > one.offset]
    return _joined(spans)


def _joined(spans: Sequence[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _loose(layout: Layout) -> Iterator[tuple[int, Section]]:
    """Sections that no segment holds: they may stand anywhere."""
    for index, one in enumerate(layout.sections):
        if index and not one.flags & SHF_ALLOC and one.kind not in (_SHT_NULL, SHT_NOBITS) and one.size:
            yield index, one


def _check(data: Data, layout: Layout, fixed: Sequence[Span], dropped: frozenset[int]) -> None:
    """Nothing that goes may be loaded, nothing may stand in the file that no header tells of."""
    own = [(one.offset, one.end) for _, one in _loose(layout)]
    table = (layout.shoff, layout.shoff + _SHDR_SIZE * len(layout.sections))
    for start, end in [*own, table]:
        if any(start < behind and before < end for before, behind in fixed):
            raise SlimRefused("a part that is not loaded lies in a loaded one", start)
    known = _joined([*fixed, *own, table])
    for (_, before), (after, _) in pairwise([(0, 0), *known, (layout.size, layout.size)]):
        for at in range(before, after, PAGE):
            if data[at : min(at + PAGE, after)].strip(b"\0"):
                raise SlimRefused("bytes that no header tells of", at)
    aligned = max((one.align for one in layout.sections if one.flags & SHF_ALLOC), default=0)
    if aligned > PAGE:
        raise SlimRefused(f"a section wants to be aligned to {aligned:#x}", layout.shoff)
    if any(section.flags & SHF_ALLOC for index, section in enumerate(layout.sections) if index in dropped):
        raise SlimRefused("a part that would go is loaded", layout.shoff)


def _lay_out(layout: Layout, fixed: Sequence[Span], gaps: Sequence[Gap], dropped: frozenset[int]) -> Stripped:
    """Loaded parts first, whole pages between them gone; then the sections that stay; then the table of sections."""
    pieces: list[Piece] = []
    at = 0

    def put(where: int, piece: Piece) -> None:
        nonlocal at
        pieces.extend([Piece(where - at), piece] if where > at else [piece])
        at = where + piece.size

    for start, end in fixed:
        put(shifted(gaps, start), Piece(end - start, start))
    sections = [
        replace(one, offset=shifted(gaps, one.offset)) if one.offset and one.flags & SHF_ALLOC else one
        for one in layout.sections
    ]
    for index, one in _loose(layout):
        if index in dropped:
            sections[index] = _INACTIVE
            continue
        where = -(-at // max(one.align, 1)) * max(one.align, 1)
        put(where, Piece(one.size, one.offset))
        sections[index] = replace(one, offset=where)
    for index in dropped:
        sections[index] = _INACTIVE
    table = b"".join(one.pack() for one in sections)
    shoff = -(-at // 8) * 8
    put(shoff, Piece(len(table), None, table))
    phoff = shifted(gaps, layout.phoff)
    segments = [replace(one, offset=shifted(gaps, one.offset)) for one in layout.segments]
    if gaps:
        segments = [replace(one, align=PAGE) if one.kind == PT_LOAD else one for one in segments]
    patches = ((32, struct.pack("<QQ", phoff, shoff)), (phoff, b"".join(one.pack() for one in segments)))
    return Stripped(tuple(pieces), patches)
