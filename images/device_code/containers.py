"""Containers of device code and their entries, from their headers; no payload is read.

The layout is not documented by NVIDIA; it was found by reading real libraries and checked against cuobjdump.
All offsets and sizes are in bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from images.device_code.elf import FatbinError, Span, UnknownForm, View
from images.device_code.model import OTHER, PTX, SASS, Container, Entry

_KINDS = {1: PTX, 2: SASS}

MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)  # the first words of every container that is known
_CONTAINER = struct.Struct("<IHHQ")
_CONTAINER_MAGIC, _CONTAINER_VERSION = 0xBA55ED50, 1
# kind, version, header size, payload size, compressed size, -, code version (minor, major), arch, name, flags, -,
# unpacked size. Longer headers (up to 112 seen) only add behind.
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_COMPRESSIONS = {0x2000: "lz4", 0x8000: "zstd"}
_SUFFIXES = {0x100000: "a", 0x200000: "f"}
_ALIGN = 8
MOST_ENTRIES = 1_000_000  # libtorch_cuda.so, the largest seen, has 2,500


def read_containers(view: View, span: Span, left: int = MOST_ENTRIES) -> Iterator[Container]:
    """The containers of ``span``, back to back with zeros between, and of ``left`` entries at most.

    Raises FatbinError for bytes that are neither, UnknownForm for a container of a version that is not known.
    """
    at, end = span.offset, span.offset + span.size
    base = span.address - span.offset
    while (at := _skip_zeros(view, at, end)) < end:
        if end - at < _CONTAINER.size:
            raise FatbinError(f"a container header of {_CONTAINER.size} bytes expected, {end - at} are left", at)
        magic, version, header, size = _CONTAINER.unpack_from(view, at)
        if magic != _CONTAINER_MAGIC:
            raise FatbinError(f"a container ({_CONTAINER_MAGIC:#x}) expected, not {magic:#x}", at)
        if version != _CONTAINER_VERSION or header != _CONTAINER.size:
            raise UnknownForm(f"a container of version 1, header 16 expected, not {version}, {header}", at + 4)
        if size > end - at - header:
            raise FatbinError(f"a payload of at most {end - at - header} bytes expected, not {size}", at + 8)
        entries = tuple(read_entries(view, at + header, at + header + size, base, left))
        left -= len(entries)
        yield Container(at, at + base, header, size, entries)
        at += header + size


def read_entries(view: View, at: int, end: int, base: int, left: int = MOST_ENTRIES) -> Iterator[Entry]:
    """The entries of a container's payload; ``base`` is what an address is above a file offset. Raises FatbinError."""
    while at < end:
        if end - at < _ENTRY.size:
            raise FatbinError(f"an entry header of {_ENTRY.size} bytes expected, {end - at} are left", at)
        if not left:
            raise FatbinError("fewer entries expected: no library has so many", at)
        left -= 1
        kind, _, header, size, _, _, minor, major, arch, _, _, flags, _, _ = _ENTRY.unpack_from(view, at)
        if not _ENTRY.size <= header <= end - at:
            raise FatbinError(f"an entry header of {_ENTRY.size} to {end - at} bytes expected, not {header}", at + 4)
        if size > end - at - header:
            raise FatbinError(f"a payload of at most {end - at - header} bytes expected, not {size}", at + 8)
        compression = _one(_COMPRESSIONS, flags)
        suffix = suffix_of(flags)
        known = _KINDS.get(kind, OTHER)
        yield Entry(known, arch, suffix, (major, minor), flags, compression, header, size, at, at + base)
        at += header + size


def suffix_of(flags: int) -> str:
    """The suffix of an entry's arch by its flags: "a" for code of that card alone, "f" for its family, or ""."""
    return _one(_SUFFIXES, flags)


def _one(names: dict[int, str], flags: int) -> str:
    return next((name for bit, name in names.items() if flags & bit), "")


def _skip_zeros(view: View, at: int, end: int) -> int:
    """Where the padding behind a container ends: whole zero words, so that a container stays aligned to 8."""
    while at < end:
        chunk = bytes(view[at : min(at + 4096, end)])
        rest = chunk.lstrip(b"\0")
        if rest:
            return at + (len(chunk) - len(rest)) // _ALIGN * _ALIGN
        at += len(chunk)
    return end
