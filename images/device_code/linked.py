"""What a device linker made, and what it made it from.

A wrapper in `.nvFatBinSegment` of version 2 (fatbinary_section.h of the toolkit) leads to the linked container and to an
array of the containers that were linked. Where the linked code is not for a card, the driver links those again when the
library is loaded, PTX among them compiled first; for that every one of them must have something for the card
(CUDA Compiler Driver NVCC, 6.6.2, "JIT Linking Support").
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from images.device_code.elf import FatbinError, Span, View, find_sections
from images.device_code.model import Container, Linked

WRAPPER = struct.Struct("<IIQQ")
WRAPPER_MAGIC = 0x466243B1
_LINKED_VERSION = 2
_RELATIVE = 8  # R_X86_64_RELATIVE
_AARCH64_RELATIVE = 1027
_RELA = struct.Struct("<QQQ")
_TABLES = (".rela.dyn", ".relr.dyn", ".data.rel.ro", ".data", ".rodata", ".ldata", "__nv_module_id")
_MOST_PARTS = 100_000


def wrappers(view: View, span: Span) -> Iterator[tuple[int, int]]:
    """Address and version of each wrapper. Raises FatbinError for one that is none."""
    for at in range(span.offset, span.offset + span.size // WRAPPER.size * WRAPPER.size, WRAPPER.size):
        magic, version, _, _ = WRAPPER.unpack_from(view, at)
        if magic != WRAPPER_MAGIC:
            raise FatbinError(f"a wrapper ({WRAPPER_MAGIC:#x}) expected, not {magic:#x}", at)
        yield span.address + at - span.offset, version


def linked_code(view: View, span: Span, containers: Iterable[Container]) -> tuple[Linked, ...]:
    """What the wrappers of version 2 in ``span`` lead to; none in a file that a linker has not finished."""
    by_address = {container.address: container for container in containers if container.address}
    places = [address for address, version in wrappers(view, span) if version == _LINKED_VERSION]
    if not places or not by_address:
        return ()
    words = _words(view, span)
    found = []
    for place in places:
        container, array = words.get(place + 8, 0), words.get(place + 16, 0)
        parts = tuple(_parts(words, array, by_address))
        if container in by_address and parts:
            found.append(Linked(container, parts))
    return tuple(found)


def _parts(words: Mapping[int, int], array: int, by_address: Mapping[int, Container]) -> Iterator[Container]:
    """The containers of an array of pointers that ends with a null."""
    for index in range(_MOST_PARTS):
        target = words.get(array + 8 * index, 0)
        if target not in by_address:
            return
        yield by_address[target]


def _words(view: View, span: Span) -> dict[int, int]:
    """Address -> what the loader or the linker put there, for pointers: relative relocations, and RELR in place."""
    found: dict[int, int] = {}
    for section in find_sections(view, _TABLES):
        raw = bytes(view[section.offset : section.offset + section.size // 8 * 8])
        if section.name == ".rela.dyn":
            for slot, info, addend in _RELA.iter_unpack(raw[: len(raw) // 24 * 24]):
                if info & 0xFFFFFFFF in (_RELATIVE, _AARCH64_RELATIVE):
                    found[slot] = addend
    for section in (*find_sections(view, _TABLES[2:]), span):
        raw = bytes(view[section.offset : section.offset + section.size // 8 * 8])
        for index, (value,) in enumerate(struct.iter_unpack("<Q", raw)):
            if value:
                found.setdefault(section.address + 8 * index, value)
    return found
