"""Device code as values: entries, containers, sections, and the file that holds them. Sizes and offsets in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from images.device_code.elf import Span

PTX, SASS, OTHER = "PTX", "SASS", "other"

# What kind of file it is; "" for one that holds no device code by its nature.
LIBRARY, CUBIN, FATBIN, PTX_TEXT, ARCHIVE, FOREIGN = "library", "cubin", "fatbin", "PTX text", "archive", "foreign"
BARE = (CUBIN, FATBIN, PTX_TEXT)  # nothing but device code: the program that loads it chooses the file

RELOCATABLE = "__nv_relfatbin"


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
    """A section of device code: its name, place (file offset, virtual address, size) and containers in file order.

    Of a ``pooled`` one the library itself hands to the driver what it chose, as cuFFT does of 24,453 containers of one
    entry each; of any other the driver is given every container.
    """

    name: str
    offset: int
    address: int
    size: int
    containers: tuple[Container, ...]
    pooled: bool = False


@dataclass(frozen=True)
class Linked:
    """What a device linker made: the ``address`` of its container, and the ``parts`` that it was linked from.

    NVIDIA's compiler puts both into the library (a wrapper of version 2), so that the driver can link the parts anew
    for a card that the linked code is not for.
    """

    address: int
    parts: tuple[Container, ...]


@dataclass(frozen=True)
class Library:
    """One file. ``elf``: whether it is 64-bit little-endian ELF at all; ``size`` is the file's.

    ``sections`` are those of device code, by offset, none if it has none; ``wrappers`` is the place of
    `.nvFatBinSegment`, whose 24-byte records point at the containers, or None. ``linked`` is what a device linker made.
    ``unread`` says why some of its device code cannot be read; empty if all was.
    """

    elf: bool
    size: int
    sections: tuple[Section, ...] = ()
    wrappers: Span | None = None
    form: str = LIBRARY
    linked: tuple[Linked, ...] = ()
    unread: str = ""

    @property
    def holds_code(self) -> bool:
        """Whether there is device code in it, readable or not."""
        return bool(self.sections and self.containers) or bool(self.unread)

    @cached_property
    def containers(self) -> tuple[Container, ...]:
        """Of all sections, in file order."""
        return tuple(container for section in self.sections for container in section.containers)

    @cached_property
    def loadable(self) -> tuple[Container, ...]:
        """What the driver is given: not the leftovers of relocatable code, where linked code stands beside them.

        A pooled section is one container here: one entry of it that runs is enough.
        """
        linked = [section for section in self.sections if section.name != RELOCATABLE and section.containers]
        found: list[Container] = []
        for section in linked or self.sections:
            if section.pooled and section.containers:
                entries = tuple(entry for container in section.containers for entry in container.entries)
                found.append(Container(section.offset, section.address, 0, section.size, entries))
            else:
                found += section.containers
        return tuple(found)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Of all containers, in file order."""
        return tuple(entry for container in self.containers for entry in container.entries)
