"""What becomes of one library's bytes: which ranges stay, which pages go back, which words change."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from images.device_code.choose import CONTAINER, CONTAINER_MAGIC, Container, Entry, Wanted, keep, pick, read_containers
from images.device_code.layout import (
    PAGE,
    PT_GNU_PROPERTY,
    PT_LOAD,
    PT_NOTE,
    PT_PHDR,
    SHF_ALLOC,
    SHF_COMPRESSED,
    Data,
    Layout,
    Section,
    Segment,
    SlimRefused,
    device_sections,
    read_layout,
)
from images.device_code.relocations import check_wrappers, pointers, symbols
from images.device_code.write import Piece

_PHDR_SIZE, _PHNUM_AT = 56, 56
_MOST_ALIGNED = 1 << 21


@dataclass(frozen=True)
class Gap:
    """Whole pages of the old file, ``start`` to ``end``, that the new one lacks."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes given back."""
        return self.end - self.start


@dataclass(frozen=True)
class Plan:
    """The new file: ``pieces`` in order, then ``patches`` (offset in the new file, bytes). No pieces: unchanged.

    ``before`` and ``after`` are the entries of all containers; ``emptied`` counts the containers that hold nothing
    for any wanted card.
    """

    before: tuple[Entry, ...] = ()
    after: tuple[Entry, ...] = ()
    emptied: int = 0
    pieces: tuple[Piece, ...] = ()
    patches: tuple[tuple[int, bytes], ...] = ()

    @property
    def size(self) -> int:
        """The new file's, in bytes."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True)
class _Packed:
    """One section of device code: its new bytes, where they end in old offsets, and old -> new addresses."""

    index: int
    section: Section
    pieces: tuple[Piece, ...]
    end: int
    moved: dict[int, int]


def make_plan(data: Data, wanted: Sequence[Wanted], *, hollow: bool = False) -> Plan:
    """What slimming ``data`` for the cards ``wanted`` does; ``hollow`` as in `keep`. Reads headers only.

    Raises SlimRefused.
    """
    layout = read_layout(data)
    packed, before, after, emptied = [], [], [], 0
    for index, section in device_sections(layout):
        containers = read_containers(data, section)
        picked = [pick(container.entries, wanted) for container in containers]
        kept = [
            keep(container.entries, some, hollow=hollow) for container, some in zip(containers, picked, strict=True)
        ]
        before += [entry for container in containers for entry in container.entries]
        after += [entry for entries in kept for entry in entries]
        emptied += sum(bool(container.entries) and not some for container, some in zip(containers, picked, strict=True))
        if any(len(container.entries) != len(entries) for container, entries in zip(containers, kept, strict=True)):
            packed.append(_pack(index, section, containers, kept))
    if not packed:
        return Plan(tuple(before), tuple(before), emptied)
    _check_sections(layout, packed)
    words = _words(data, layout, packed)
    gaps, segments, phoff = _cut(layout, packed)
    patches = [(shifted(gaps, at), struct.pack("<Q", value)) for at, value in words]
    patches += _headers(layout, packed, gaps, segments, phoff)
    return Plan(tuple(before), tuple(after), emptied, tuple(_pieces(layout, packed, gaps)), tuple(patches))


def _pack(index: int, section: Section, containers: Sequence[Container], kept: Sequence[tuple[Entry, ...]]) -> _Packed:
    """Containers back to back from the section's start. Their sizes are multiples of 8, and so stay aligned to 8."""
    if (section.addr - section.offset) % PAGE or section.addr % 8:
        raise SlimRefused("the section of device code is not aligned", section.offset)
    at, pieces, moved = section.offset, [], {}
    for container, entries in zip(containers, kept, strict=True):
        payload = sum(entry.size for entry in entries)
        moved[section.addr + container.offset - section.offset] = section.addr + at - section.offset
        pieces.append(Piece(CONTAINER.size, None, CONTAINER.pack(CONTAINER_MAGIC, 1, CONTAINER.size, payload)))
        pieces += [Piece(entry.size, entry.offset) for entry in entries]
        at += CONTAINER.size + payload
    return _Packed(index, section, tuple(pieces), at, moved)


def _check_sections(layout: Layout, packed: Sequence[_Packed]) -> None:
    """Nothing else may lie in a section of device code, and every such section must be a plain one."""
    for one in packed:
        section = one.section
        if not section.flags & SHF_ALLOC or section.flags & SHF_COMPRESSED:
            raise SlimRefused("device code that no program loads", section.offset)
        for index, other in enumerate(layout.sections[1:], 1):
            if index != one.index and other.offset < section.end and section.offset < other.end:
                raise SlimRefused(f"section {other.name} lies in the device code", section.offset)
        for start, size in (
            (0, 64),
            (layout.phoff, 56 * len(layout.segments)),
            (layout.shoff, 64 * len(layout.sections)),
        ):
            if start < section.end and section.offset < start + size:
                raise SlimRefused("a header table lies in the device code", section.offset)


def _words(data: Data, layout: Layout, packed: Sequence[_Packed]) -> list[tuple[int, int]]:
    """(offset in the old file, new value) of every word that leads to a container."""
    words: list[tuple[int, int]] = []
    slots: set[int] = set()
    for index, section in device_sections(layout):
        found, filled = pointers(data, layout, section)
        slots |= filled
        for one in packed:
            if one.index != index:
                continue
            for pointer in found:
                if pointer.target not in one.moved:
                    raise SlimRefused("a relocation leads into the middle of a container", pointer.offset)
                words.append((pointer.offset, one.moved[pointer.target]))
            if set(one.moved) - {pointer.target for pointer in found}:
                raise SlimRefused("a container that no relocation leads to", section.offset)
            words += symbols(data, layout, index, one.moved)
    check_wrappers(data, layout, slots)
    for at, _ in words:
        if any(one.section.offset - 8 < at < one.section.end for one in packed):
            raise SlimRefused("a pointer lies in the device code", at)
    return words


def _cut(layout: Layout, packed: Sequence[_Packed]) -> tuple[list[Gap], list[Segment], int]:
    """The pages that go back, the program headers of the old offsets around them, and where their table is to stand.

    Where no header is spare for the second part of a segment, the table moves behind the device code that stays, where
    there is room for more, and which is loaded with it.
    """
    gaps: list[Gap] = []
    segments = list(layout.segments)
    phoff = layout.phoff
    unit = _unit(layout)
    for one in sorted(packed, key=lambda one: one.end - one.section.end):
        gap = _gap(one.end, one.section.end, unit)
        if gap is None:
            continue
        split = _split(segments, one.section, gap, grow=phoff != layout.phoff)
        if split is None:
            table = -(-one.end // 8) * 8
            gap = _gap(table + _PHDR_SIZE * (len(segments) + len(packed)), one.section.end, unit)
            if gap is None:
                continue  # less than a page would be gained
            split = _split(segments, one.section, gap, grow=True) or segments
            phoff = table
        segments = split
        gaps.append(gap)
    if gaps:
        segments = [replace(one, align=min(one.align, unit)) if one.kind == PT_LOAD else one for one in segments]
    if phoff != layout.phoff:
        segments = [_table(one, layout, packed, phoff, len(segments)) for one in segments]
    return sorted(gaps, key=lambda gap: gap.start), segments, phoff


def _unit(layout: Layout) -> int:
    """What is cut must be a multiple of it: the page, or what a section wants to be aligned to, if that is more."""
    aligned = max((section.align for section in layout.sections if section.flags & SHF_ALLOC), default=0)
    if aligned <= PAGE:
        return PAGE
    if aligned & (aligned - 1) or aligned > _MOST_ALIGNED:
        raise SlimRefused(f"a section wants to be aligned to {aligned:#x}", layout.shoff)
    return aligned


def _gap(kept: int, end: int, unit: int) -> Gap | None:
    """Whole pages between ``kept`` and ``end``, as many as make a multiple of ``unit``; None for none."""
    start = -(-kept // PAGE) * PAGE
    size = (end // PAGE * PAGE - start) // unit * unit
    return Gap(start, start + size) if size > 0 else None


def _table(segment: Segment, layout: Layout, packed: Sequence[_Packed], phoff: int, count: int) -> Segment:
    """The header that tells where the table of headers is, for the moved one; any other as it is."""
    if segment.kind != PT_PHDR:
        return segment
    section = next(one.section for one in packed if one.section.offset <= phoff < one.section.end)
    vaddr = section.addr + phoff - section.offset
    size = _PHDR_SIZE * count
    return replace(segment, offset=phoff, vaddr=vaddr, paddr=vaddr, filesz=size, memsz=size)


def _split(segments: Sequence[Segment], section: Section, gap: Gap, *, grow: bool = False) -> list[Segment] | None:
    """The headers with the PT_LOAD around ``gap`` in two, one more if ``grow``; None if none can be spared else."""
    owners = [s for s in segments if s.kind == PT_LOAD and s.offset <= section.offset and section.end <= s.end]
    if len(owners) != 1 or owners[0].vaddr + section.offset - owners[0].offset != section.addr:
        raise SlimRefused("the device code is not in one loaded segment", section.offset)
    (owner,) = owners
    for other in segments:
        if other is not owner and other.filesz and other.offset < gap.end and gap.start < other.end:
            raise SlimRefused("another segment reaches into the device code", section.offset)
    head = gap.start - owner.offset
    first = replace(owner, filesz=head, memsz=head)
    result = list(segments)
    at = result.index(owner)
    tail = gap.end - owner.offset
    if section.end == owner.end and owner.memsz == owner.filesz:
        result[at] = first
        return result
    second = replace(
        owner,
        offset=gap.end,
        vaddr=owner.vaddr + tail,
        paddr=(owner.paddr + tail) % (1 << 64),  # nobody reads it: it need not make sense
        filesz=owner.filesz - tail,
        memsz=owner.memsz - tail,
    )
    if grow:
        result[at : at + 1] = [first, second]
        return result
    spare = _spare(segments)
    if spare is None:
        return None
    result[at : at + 1] = [first, second]
    del result[spare + (spare > at)]
    return result


def _spare(segments: Sequence[Segment]) -> int | None:
    """A header that no loader misses: GNU_PROPERTY where a PT_NOTE says the same, else a PT_NOTE, else the former."""
    notes = [index for index, segment in enumerate(segments) if segment.kind == PT_NOTE]
    properties = [index for index, segment in enumerate(segments) if segment.kind == PT_GNU_PROPERTY]
    said = {(segments[index].offset, segments[index].filesz) for index in notes}
    twice = [index for index in properties if (segments[index].offset, segments[index].filesz) in said]
    return next(iter([*twice, *reversed(notes), *properties]), None)


def shifted(gaps: Iterable[Gap], offset: int) -> int:
    """Where a byte of the old file stands in the new one; a byte of a gap stands where that was."""
    return offset - sum(min(offset, gap.end) - gap.start for gap in gaps if offset > gap.start)


def _headers(
    layout: Layout, packed: Sequence[_Packed], gaps: Sequence[Gap], segments: Sequence[Segment], phoff: int
) -> Iterable[tuple[int, bytes]]:
    phoff, shoff = shifted(gaps, phoff), shifted(gaps, layout.shoff)
    yield 32, struct.pack("<QQ", phoff, shoff)
    yield _PHNUM_AT, struct.pack("<H", len(segments))
    yield phoff, b"".join(replace(one, offset=shifted(gaps, one.offset)).pack() for one in segments)
    ends = {one.index: one.end for one in packed}
    table = []
    for index, section in enumerate(layout.sections):
        size = ends[index] - section.offset if index in ends else section.size
        offset = section.offset if section.kind == 0 else shifted(gaps, section.offset)
        table.append(replace(section, offset=offset, size=size).pack())
    yield shoff, b"".join(table)


def _pieces(layout: Layout, packed: Sequence[_Packed], gaps: Sequence[Gap]) -> Iterable[Piece]:
    at = 0
    for one in sorted(packed, key=lambda one: one.section.offset):
        yield Piece(one.section.offset - at, at)
        yield from one.pieces
        cut = sum(gap.size for gap in gaps if one.section.offset <= gap.start and gap.end <= one.section.end)
        yield Piece(one.section.end - one.end - cut)
        at = one.section.end
    yield Piece(layout.size - at, at)
