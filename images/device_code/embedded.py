"""Device code in a library's data: fat binaries and cubins that it hands to the driver by itself.

cuFFT keeps 24,453 containers in `.ldata`, others have cubins as arrays of bytes. What is found there counts as one
pool, of which the library chooses.
"""

from __future__ import annotations

from collections.abc import Iterator

from images.device_code.bare import cubin_entry, is_cubin
from images.device_code.containers import MAGIC as CONTAINER_MAGIC
from images.device_code.containers import MOST_ENTRIES, read_entries
from images.device_code.elf import MAGIC, FatbinError, Span, View, data_sections
from images.device_code.model import Container, Section

_CHUNK = 4 << 20
_CUBIN_MAGIC = MAGIC + b"\x02\x01\x01"
_MOST_FOUND = 1_000_000


def embedded_sections(view: View, known: frozenset[str]) -> tuple[Section, ...]:
    """Sections of data with containers or cubins in them; those named in ``known`` are read elsewhere.

    What only looks like a header is passed over: a program may have the magic numbers in it to compare with. Raises
    FatbinError where the table of sections is not inside the file.
    """
    found = []
    left = MOST_ENTRIES
    for span in data_sections(view):
        if span.name in known or span.size < 64:
            continue
        containers = tuple(_containers(view, span, left))
        left -= sum(len(container.entries) for container in containers)
        if containers:
            found.append(Section(span.name, span.offset, span.address, span.size, containers, pooled=True))
    return tuple(found)


def _containers(view: View, span: Span, left: int) -> Iterator[Container]:
    end = span.offset + span.size
    base = span.address - span.offset
    behind = span.offset  # what was found last ends here
    for at in sorted([*_places(view, span, CONTAINER_MAGIC), *_places(view, span, _CUBIN_MAGIC)]):
        if at < behind or left <= 0:
            continue
        one = _container(view, at, end, base, left) if view[at] == CONTAINER_MAGIC[0] else _cubin(view, at, end, base)
        if one is not None:
            behind = one.end
            left -= len(one.entries)
            yield one


def _container(view: View, at: int, end: int, base: int, left: int) -> Container | None:
    size = int.from_bytes(view[at + 8 : at + 16], "little")
    if end - at < 16 or not size or size > end - at - 16:
        return None
    try:
        entries = tuple(read_entries(view, at + 16, at + 16 + size, base, left))
    except FatbinError:
        return None
    if not all(10 <= entry.arch < 1000 for entry in entries):
        return None
    return Container(at, at + base, 16, size, entries)


def _cubin(view: View, at: int, end: int, base: int) -> Container | None:
    if end - at < 64 or not is_cubin(bytes(view[at : at + 64])):
        return None
    try:
        entry = cubin_entry(view, at, end)
    except FatbinError:
        return None
    return Container(at, at + base, 0, entry.size, (entry,))


def _places(view: View, span: Span, pattern: bytes) -> Iterator[int]:
    """Offsets of ``pattern`` in ``span``, a few MB at a time."""
    end = span.offset + span.size
    count = 0
    for start in range(span.offset, end, _CHUNK):
        chunk = bytes(view[start : min(start + _CHUNK + len(pattern) - 1, end)])
        at = chunk.find(pattern)
        while at >= 0:
            count += 1
            if count > _MOST_FOUND:
                return
            yield start + at
            at = chunk.find(pattern, at + len(pattern))
