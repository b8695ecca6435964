"""What a wheel may be, looked at before anything of it is unpacked: sizes, counts, and members that lie apart."""

from __future__ import annotations

import struct
import zipfile
from itertools import pairwise
from pathlib import Path

MOST_MEMBERS = 500_000  # flashinfer-cubin 0.6.13, with the most seen, has 16,020
MOST_DIRECTORY = 256 << 20  # bytes of the table of members
MOST_BYTES = 64 << 30  # of all members, unpacked
MOST_OF_ONE = 16 << 30
# Above the first size a member, or all of them, may unpack to so many times what it takes: libraries stay below 20,
# deflate can reach 1032.
FREE_BYTES, MOST_RATIO = 256 << 20, 100

_END, _END_MAGIC = struct.Struct("<4s4H2IH"), b"PK\x05\x06"
_LOCATOR, _LOCATOR_MAGIC = struct.Struct("<4sIQI"), b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2I4Q")
_TAIL = (1 << 16) + _END.size + _LOCATOR.size
_LOCAL_HEADER = 30


class ZipRefused(zipfile.BadZipFile):
    """A zip file that is made to take time or space, or beyond the bounds."""


def check_directory(path: Path) -> None:
    """Raises ZipRefused where the table of members is beyond the bounds: zipfile would read all of it into memory."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = max(0, size - _TAIL)
        file.seek(start)
        tail = file.read(_TAIL)
        at = tail.rfind(_END_MAGIC)
        if at < 0 or len(tail) - at < _END.size:
            return  # zipfile says what is wrong with it
        _, _, _, _, count, directory, _, _ = _END.unpack_from(tail, at)
        if at >= _LOCATOR.size and tail[at - _LOCATOR.size :][:4] == _LOCATOR_MAGIC:
            _, _, place, _ = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
            if place <= size - _END64.size:
                file.seek(place)
                fields = _END64.unpack(file.read(_END64.size))
                count, directory = max(count % 0xFFFF, fields[7]), max(directory % 0xFFFFFFFF, fields[8])
    if count > MOST_MEMBERS or directory > MOST_DIRECTORY:
        raise ZipRefused(f"{count} members in a table of {directory} bytes: at most {MOST_MEMBERS} are read")


def check_members(wheel: zipfile.ZipFile) -> None:
    """Raises ZipRefused for members that overlap, that are too many, or that unpack to more than is plausible."""
    members = wheel.infolist()
    if len(members) > MOST_MEMBERS:
        raise ZipRefused(f"{len(members)} members: at most {MOST_MEMBERS} are read")
    spans = sorted((one.header_offset, one.header_offset + _LOCAL_HEADER + one.compress_size) for one in members)
    for (_, end), (start, _) in pairwise([*spans, (wheel.start_dir, wheel.start_dir)]):
        if end > start:
            raise ZipRefused("its members overlap: the same bytes would be unpacked again and again")
    packed, unpacked = sum(one.compress_size for one in members), sum(one.file_size for one in members)
    for name, small, large, most in [
        *((one.filename, one.compress_size, one.file_size, MOST_OF_ONE) for one in members),
        ("it", packed, unpacked, MOST_BYTES),
    ]:
        if large > most or (large > FREE_BYTES and large > MOST_RATIO * small):
            raise ZipRefused(f"{name!r:.200} unpacks from {small} to {large} bytes: no library is packed like that")
