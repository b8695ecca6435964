"""Static archives (`ar`): the device code of the objects in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from images.device_code.elf import FatbinError, View
from images.device_code.model import ARCHIVE, Library, Section

MAGIC, THIN = b"!<arch>\n", b"!<thin>\n"
_HEADER = 60
_MOST_MEMBERS = 200_000  # libcublasLt_static.a, the largest seen, has some thousands

Read = Callable[[View, str], Library]


def members(view: View) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each member; the tables of symbols and names are none. Raises FatbinError."""
    names = b""
    at, count = len(MAGIC), 0
    while at + _HEADER <= len(view):
        count += 1
        if count > _MOST_MEMBERS:
            raise FatbinError(f"at most {_MOST_MEMBERS} members expected", at)
        header = bytes(view[at : at + _HEADER])
        digits = header[48:58].strip()
        if header[58:] != b"`\n" or not digits.isdigit():
            raise FatbinError("the header of a member expected", at)
        start, size = at + _HEADER, int(digits)
        if size > len(view) - start:
            raise FatbinError(f"a member of at most {len(view) - start} bytes expected, not {size}", at + 48)
        name = header[:16].rstrip()
        if name == b"//":
            names = bytes(view[start : start + size])
        elif name not in (b"/", b"/SYM64/"):
            yield _name(name, names), start, size
        at = start + size + size % 2
    if len(view) - at > 0:
        raise FatbinError("the header of a member expected, the file ends in it", at)


def _name(name: bytes, names: bytes) -> str:
    if name[:1] == b"/" and name[1:].isdigit():  # a long name stands in the table of names
        at = int(name[1:])
        name = names[at : names.find(b"\n", at)]
    return name.rstrip(b"/").decode("latin-1")


def read_archive(view: View, read: Read) -> Library:
    """The device code of all members, each a section of its name; ``read`` reads one.

    What an object holds that a device linker still has to link counts as code: it is what there is. Raises FatbinError.
    """
    sections: list[Section] = []
    unread: list[str] = []
    with memoryview(view) as whole:
        for name, start, size in members(view):
            with whole[start : start + size] as part:
                try:
                    found = read(part, name)
                except FatbinError as error:
                    unread.append(f"{name}: {error}")
                    continue
            if found.unread:
                unread.append(f"{name}: {found.unread}")
            if found.loadable:
                sections.append(Section(name, start, 0, size, found.loadable))
    return Library(False, len(view), tuple(sections), form=ARCHIVE, unread="; ".join(unread[:3]))
