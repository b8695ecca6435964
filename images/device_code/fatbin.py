"""The device code of one ELF file: containers and entries of `.nv_fatbin`, from their headers; no payload is read.

The layout is not documented by NVIDIA; it was found by reading real libraries and checked against cuobjdump.
All offsets and sizes are in bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path

from images.device_code.elf import FatbinError, Span, View, find_sections, is_elf

__all__ = ["OTHER", "PTX", "SASS", "Container", "Entry", "FatbinError", "Library", "Section", "read", "suffix_of"]

SECTIONS = (".nv_fatbin", "__nv_relfatbin")
WRAPPERS = ".nvFatBinSegment"

PTX, SASS, OTHER = "PTX", "SASS", "other"
_KINDS = {1: PTX, 2: SASS}

_CONTAINER = struct.Struct("<IHHQ")
_CONTAINER_MAGIC, _CONTAINER_VERSION = 0xBA55ED50, 1
# kind, version, header size, payload size, compressed size, -, code version (minor, major), arch, name, flags, -,
# unpacked size. Longer headers (up to 112 seen) only add behind.
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_COMPRESSIONS = {0x2000: "lz4", 0x8000: "zstd"}
_SUFFIXES = {0x100000: "a", 0x200000: "f"}
_ALIGN = 8
_MOST_ENTRIES = 1_000_000  # libtorch_cuda.so, the largest seen, has 2,500


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of code for one architecture.

    ``kind`` is PTX, SASS or OTHER; ``arch`` the compiler's number (75, 120); ``suffix`` "", "a" or "f";
    ``version`` (major, minor) of the code: for PTX that of its language, which says what driver can compile it;
    ``compression`` "", "lz4" or "zstd". The header is at ``offset`` of the file and ``address`` when loaded,
    ``header_size`` long; ``size`` is the payload's behind it, padding included.
    """

    kind: str
    arch: int
    suffix: str
    version: tuple[int, int]
    flags: int
    compression: str
    header_size: int
    size: int
    offset: int
    address: int

    @property
    def end(self) -> int:
        """The file offset behind its payload."""
        return self.offset + self.header_size + self.size


@dataclass(frozen=True, slots=True)
class Container:
    """One container: what one translation unit was compiled to, for every architecture. The driver picks one entry.

    ``offset`` and ``address`` are its header's, ``size`` is of the payload behind it.
    """

    offset: int
    address: int
    header_size: int
    size: int
    entries: tuple[Entry, ...]

    @property
    def end(self) -> int:
        """The file offset behind its payload."""
        return self.offset + self.header_size + self.size


@dataclass(frozen=True, slots=True)
class Section:
    """A section of device code: its name, place (file offset, virtual address, size) and containers in file order."""

    name: str
    offset: int
    address: int
    size: int
    containers: tuple[Container, ...]


@dataclass(frozen=True)
class Library:
    """One file. ``elf``: whether it is 64-bit little-endian ELF at all; ``size`` is the file's.

    ``sections`` are those of device code, by offset, none if it has none; ``wrappers`` is the place of
    `.nvFatBinSegment`, whose 24-byte records point at the containers, or None.
    """

    elf: bool
    size: int
    sections: tuple[Section, ...] = ()
    wrappers: Span | None = None

    @cached_property
    def containers(self) -> tuple[Container, ...]:
        """Of all sections, in file order."""
        return tuple(container for section in self.sections for container in section.containers)

    @cached_property
    def loadable(self) -> tuple[Container, ...]:
        """What the driver is given: not the leftovers of relocatable code, where linked code stands beside them."""
        linked = [section for section in self.sections if section.name == SECTIONS[0] and section.containers]
        return tuple(container for section in linked or self.sections for container in section.containers)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Of all containers, in file order."""
        return tuple(entry for container in self.containers for entry in container.entries)


def read(source: Path | str | View) -> Library:
    """The device code of a file (a path: mapped, not loaded) or of its bytes.

    A file that is no ELF, or has no section of device code, gives a Library without sections. Raises FatbinError,
    with the offset, for one that is cut short or not formed as its headers say; OSError for a path not readable.
    """
    if not isinstance(source, Path | str):
        return _read(source)
    with Path(source).open("rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(0)
        if not is_elf(handle.read(64)):
            return Library(False, size)
        with mmap(handle.fileno(), 0, access=ACCESS_READ) as view:
            return _read(view)


def _read(view: View) -> Library:
    if not is_elf(view):
        return Library(False, len(view))
    sections, wrappers, left = [], None, _MOST_ENTRIES
    for span in find_sections(view, (*SECTIONS, WRAPPERS)):
        if span.name == WRAPPERS:
            wrappers = span
            continue
        section = Section(span.name, span.offset, span.address, span.size, tuple(_containers(view, span, left)))
        sections.append(section)
        left -= sum(len(container.entries) for container in section.containers)
    return Library(True, len(view), tuple(sections), wrappers)


def _containers(view: View, span: Span, left: int) -> Iterator[Container]:
    at, end = span.offset, span.offset + span.size
    base = span.address - span.offset
    while (at := _skip_zeros(view, at, end)) < end:
        if end - at < _CONTAINER.size:
            raise FatbinError(f"a container header of {_CONTAINER.size} bytes expected, {end - at} are left", at)
        magic, version, header, size = _CONTAINER.unpack_from(view, at)
        if magic != _CONTAINER_MAGIC:
            raise FatbinError(f"a container ({_CONTAINER_MAGIC:#x}) expected, not {magic:#x}", at)
        if version != _CONTAINER_VERSION or header != _CONTAINER.size:
            raise FatbinError(f"a container of version 1, header 16 expected, not {version}, {header}", at + 4)
        if size > end - at - header:
            raise FatbinError(f"a payload of at most {end - at - header} bytes expected, not {size}", at + 8)
        entries = tuple(_entries(view, at + header, at + header + size, base, left))
        left -= len(entries)
        yield Container(at, at + base, header, size, entries)
        at += header + size


def _entries(view: View, at: int, end: int, base: int, left: int) -> Iterator[Entry]:
    while at < end:
        if end - at < _ENTRY.size:
            raise FatbinError(f"an entry header of {_ENTRY.size} bytes expected, {end - at} are left", at)
        if not left:
            raise FatbinError(f"at most {_MOST_ENTRIES} entries expected", at)
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
