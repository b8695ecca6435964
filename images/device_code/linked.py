"""What a device linker made, and what it made it from.

A wrapper in `.nvFatBinSegment` of version 2 (fatbinary_section.h of the toolkit) leads to the linked container and to
an array of the containers that were linked, which the library fills when it is loaded: those of `__nv_relfatbin`. Where
the linked code is not for a card, the driver links them again, PTX among them compiled first; for that each of them
must have something for the card (CUDA Compiler Driver NVCC, 6.6.2, "JIT Linking Support").
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from images.device_code.elf import FatbinError, Span, View, find_sections
from images.device_code.model import RELOCATABLE, Linked, Section

WRAPPER = struct.Struct("<IIQQ")
WRAPPER_MAGIC = 0x466243B1
_LINKED_VERSION = 2
_RELATIVE = (8, 1027)  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE
_RELA = struct.Struct("<QQQ")


def wrappers(view: View, span: Span) -> Iterator[tuple[int, int]]:
    """Address and version of each wrapper. Raises FatbinError for one that is none."""
    for at in range(span.offset, span.offset + span.size // WRAPPER.size * WRAPPER.size, WRAPPER.size):
        magic, version, _, _ = WRAPPER.unpack_from(view, at)
        if magic != WRAPPER_MAGIC:
            raise FatbinError(f"a wrapper ({WRAPPER_MAGIC:#x}) expected, not {magic:#x}", at)
        yield span.address + at - span.offset, version


def linked_code(view: View, span: Span, sections: Iterable[Section]) -> tuple[Linked, ...]:
    """What the wrappers of version 2 in ``span`` lead to; none in a file that a linker has not finished.

    With several of them it cannot be told which parts are whose: each is said to be made of all, which errs towards
    "none".
    """
    places = [address for address, version in wrappers(view, span) if version == _LINKED_VERSION]
    sections = tuple(sections)
    parts = tuple(one for section in sections if section.name == RELOCATABLE for one in section.containers)
    known = {one.address for section in sections for one in section.containers if section.name != RELOCATABLE}
    if not places or not parts:
        return ()
    words = _words(view, span)
    found = [words.get(place + 8, 0) for place in places]
    return tuple(Linked(address, parts) for address in found if address in known)


def _words(view: View, span: Span) -> dict[int, int]:
    """Address -> pointer there, of ``span``: what relative relocations put there, or else what stands in the file."""
    raw = bytes(view[span.offset : span.offset + span.size // 8 * 8])
    found = {span.address + 8 * index: value for index, (value,) in enumerate(struct.iter_unpack("<Q", raw))}
    end = span.address + span.size
    for section in find_sections(view, (".rela.dyn",)):
        table = bytes(view[section.offset : section.offset + section.size // _RELA.size * _RELA.size])
        for slot, info, addend in _RELA.iter_unpack(table):
            if span.address <= slot < end and info & 0xFFFFFFFF in _RELATIVE:
                found[slot] = addend
    return found
