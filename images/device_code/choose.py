"""Containers and entries of device code, and which entries the driver would take for a card."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from images.device_code.capability import read_capability
from images.device_code.fatbin import suffix_of
from images.device_code.layout import Data, Section, SlimRefused

CONTAINER = struct.Struct("<IHHQ")
CONTAINER_MAGIC = 0xBA55ED50
_ENTRY = struct.Struct("<HHIQ")
_ENTRY_HEADERS = range(64, 4097, 8)
_CHUNK = 4096
PTX, SASS, SASS_OTHER = 1, 2, 0x10


@dataclass(frozen=True)
class Entry:
    """One entry with its header: ``offset`` and ``size`` in bytes; ``arch`` 90 and ``suffix`` "a" for sm_90a."""

    kind: int
    arch: int
    offset: int
    size: int
    suffix: str = ""

    def runs_on(self, number: int) -> bool:
        """Whether the card of that number can run it, by the rule of `verdict.runs`."""
        if self.arch > number or (self.suffix == "a" and self.arch != number):
            return False
        return self.arch // 10 == number // 10 or (self.kind == PTX and not self.suffix)


@dataclass(frozen=True)
class Container:
    """One container: ``offset`` of its header in the file, ``size`` with the header in bytes."""

    offset: int
    size: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, order=True)
class Wanted:
    """A card's capability as one number (75), and whether PTX is to stay for later cards."""

    number: int
    ptx: bool = False

    def __str__(self) -> str:
        return f"{self.number // 10}.{self.number % 10}{'+PTX' if self.ptx else ''}"


def parse_wanted(text: str) -> Wanted:
    """Read "7.5", "sm_120" or "8.0+PTX"; a suffix (9.0a) changes nothing here. Raises CapabilityError."""
    typed = read_capability(text)
    return Wanted(typed.number, typed.ptx)


def read_containers(data: Data, section: Section) -> list[Container]:
    """All containers of ``section``. Raises SlimRefused for a byte that is neither theirs nor zero padding."""
    found = []
    at, end = section.offset, section.end
    while (at := _skip_zeros(data, at, end)) < end:
        if at % 8 or end - at < CONTAINER.size:
            raise SlimRefused("a container is cut short or not aligned to 8", at)
        magic, version, header, payload = CONTAINER.unpack_from(data, at)
        if (magic, version, header) != (CONTAINER_MAGIC, 1, CONTAINER.size):
            raise SlimRefused("not a container of device code that is known", at)
        size = CONTAINER.size + payload
        if payload % 8 or size > end - at:
            raise SlimRefused("a container runs past its section", at)
        found.append(Container(at, size, tuple(_entries(data, at + CONTAINER.size, at + size))))
        at += size
    return found


def _skip_zeros(data: Data, at: int, end: int) -> int:
    while at < end:
        chunk = data[at : min(at + _CHUNK, end)]
        rest = chunk.lstrip(b"\0")
        if rest:
            return (at + len(chunk) - len(rest)) & ~7
        at += len(chunk)
    return end


def _entries(data: Data, at: int, end: int) -> Iterable[Entry]:
    while at < end:
        if end - at < _ENTRY_HEADERS[0]:
            raise SlimRefused("an entry is cut short", at)
        kind, _, header, payload = _ENTRY.unpack_from(data, at)
        (arch,), (flags,) = struct.unpack_from("<I", data, at + 28), struct.unpack_from("<Q", data, at + 40)
        if kind not in (PTX, SASS, SASS_OTHER):
            raise SlimRefused(f"an entry of the unknown kind {kind:#x}", at)
        if header not in _ENTRY_HEADERS or payload % 8 or header + payload > end - at:
            raise SlimRefused("an entry of an unknown shape", at)
        if not 10 <= arch < 1000:
            raise SlimRefused(f"an entry for the unknown arch {arch}", at)
        yield Entry(kind, arch, at, header + payload, suffix_of(flags))
        at += header + payload


def pick(entries: Iterable[Entry], wanted: Iterable[Wanted]) -> tuple[Entry, ...]:
    """The entries that the driver may take for any of the cards, in their order. An arch number stays as a whole."""
    entries = tuple(entries)
    numbers: set[tuple[bool, int]] = set()
    for card in wanted:
        numbers |= _picked(card, entries)
    return tuple(entry for entry in entries if (entry.kind == PTX, entry.arch) in numbers)


def keep(entries: Sequence[Entry], picked: Sequence[Entry], *, hollow: bool = False) -> tuple[Entry, ...]:
    """What stays of a container: ``picked``, or where that is none its smallest entry (nothing, if ``hollow``).

    With an entry left the driver still says "no kernel image" of it, as of the untouched one.
    """
    if picked or not entries or hollow:
        return tuple(picked)
    return (min(entries, key=lambda entry: (entry.size, entry.offset)),)


def _picked(card: Wanted, entries: Iterable[Entry]) -> set[tuple[bool, int]]:
    """(is PTX, arch number) of what ``card`` is given: the highest SASS that it runs, else the highest PTX."""
    usable = {(entry.kind == PTX, entry.arch) for entry in entries if entry.runs_on(card.number)}
    sass, ptx = ({one for one in usable if one[0] is compiled} for compiled in (False, True))
    best = {max(found) for found in (sass, ptx) if found}
    return best if card.ptx else {min(best)} if best else set()
