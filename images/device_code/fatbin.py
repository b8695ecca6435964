"""The device code of one file, whatever kind of file it is: libraries, programs, objects, cubins, fat binaries, PTX,
static archives. Headers are read; no payload is.
"""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path

from images.device_code.archive import MAGIC as ARCHIVE_MAGIC
from images.device_code.archive import THIN, read_archive
from images.device_code.bare import read_bare
from images.device_code.containers import MAGIC as CONTAINER_MAGIC
from images.device_code.containers import MOST_ENTRIES, read_containers, suffix_of
from images.device_code.elf import MAGIC, FatbinError, UnknownForm, View, find_sections, is_elf
from images.device_code.embedded import embedded_sections
from images.device_code.linked import linked_code
from images.device_code.model import (
    FOREIGN,
    OTHER,
    PTX,
    RELOCATABLE,
    SASS,
    Container,
    Entry,
    Library,
    Linked,
    Section,
)

__all__ = [
    "OTHER",
    "PTX",
    "SASS",
    "Container",
    "Entry",
    "FatbinError",
    "Library",
    "Linked",
    "Section",
    "UnknownForm",
    "read",
    "suffix_of",
]

SECTIONS = (".nv_fatbin", RELOCATABLE)
WRAPPERS = ".nvFatBinSegment"
_CHUNK = 4 << 20
_HEADERS = {b"\x01": 52, b"\x02": 64}  # bytes of the header of an ELF file of 32 and of 64 bits


def read(source: Path | str | View, name: str = "") -> Library:
    """The device code of a file (a path: mapped, not loaded) or of its bytes; ``name`` where the path's does not count.

    A file that has none gives a Library without sections. Raises FatbinError, with the offset, for one that is cut
    short or not formed as its headers say; UnknownForm, which is one, where its device code is of a form that is not
    known; OSError for a path not readable.
    """
    if not isinstance(source, Path | str):
        return _read(source, name)
    with Path(source).open("rb") as handle:
        size = handle.seek(0, 2)
        if not size:
            return Library(False, 0, form="")
        with mmap(handle.fileno(), 0, access=ACCESS_READ) as view:
            return _read(view, name or str(source))


def _read(view: View, name: str) -> Library:
    bare = read_bare(view, name)
    if bare is not None:
        return bare
    head = bytes(view[:8])
    if head in (ARCHIVE_MAGIC, THIN):
        if head == THIN:
            return Library(False, len(view), form="")  # names of other files
        return read_archive(view, _read)
    if head[:4] == MAGIC and len(view) < _HEADERS.get(bytes(head[4:5]), 0):
        raise FatbinError(f"the header of an ELF file expected, {len(view)} bytes are there", 0)
    if head[:2] == b"MZ":
        return _foreign(view)
    return _read_elf(view) if is_elf(view) else Library(False, len(view), form="")


def _foreign(view: View) -> Library:
    """A program or library of Windows: whether there is device code in it, and no more."""
    with memoryview(view) as whole:
        for start in range(0, len(view), _CHUNK):
            if bytes(whole[start : start + _CHUNK + len(CONTAINER_MAGIC)]).find(CONTAINER_MAGIC) >= 0:
                return Library(
                    False, len(view), form=FOREIGN, unread="a program of Windows: its device code is not read"
                )
    return Library(False, len(view), form=FOREIGN)


def _read_elf(view: View) -> Library:
    sections, wrappers, left = [], None, MOST_ENTRIES
    for span in find_sections(view, (*SECTIONS, WRAPPERS)):
        if span.name == WRAPPERS:
            wrappers = span
            continue
        section = Section(span.name, span.offset, span.address, span.size, tuple(read_containers(view, span, left)))
        sections.append(section)
        left -= sum(len(container.entries) for container in section.containers)
    sections += embedded_sections(view, frozenset((*SECTIONS, WRAPPERS)))
    sections.sort(key=lambda section: section.offset)
    containers = [container for section in sections for container in section.containers]
    linked = linked_code(view, wrappers, sections) if wrappers is not None else ()
    unread = "" if containers or wrappers is None or not wrappers.size else "it registers device code that is not found"
    return Library(True, len(view), tuple(sections), wrappers, linked=linked, unread=unread)
