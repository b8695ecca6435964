"""Counts the tensor cores' instructions in libraries' machine code, by card: runs in an image's container.

    PYTHONPATH=FOLDER_OF_images python count_machine_code.py NAMED "GLOB…" ARCH…

Prints one line of JSON: {"libraries": {file: {"7.5": {"functions", "instructions", "HMMA", …}}}, "unread": [why…]}, of
the libraries below site-packages that the globs mean, and of their functions that have NAMED in their names. Without a
disassembler: from 7.0 on an instruction has 16 bytes, and the lowest 9 bits say what it
does. That is documented nowhere; the numbers were read off nvdisasm's output (`nvdisasm -c -hex` of CUDA 12.4 and 13.0)
for code of 7.0 to 12.0, and a test holds counts against those of nvdisasm.
"""

from __future__ import annotations

import json
import mmap
import struct
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from images.device_code.fatbin import read
from images.device_code.model import SASS, Entry

# The lowest 9 bits of an instruction, by what nvdisasm calls it. Those of Volta's are another's on newer cards.
VOLTA = {0x036: "HMMA", 0x023: "FFMA"}
OPERATIONS = {
    0x03C: "HMMA",
    0x037: "IMMA",
    0x07A: "QMMA",
    0x1F0: "HGMMA",
    0x1F1: "IGMMA",
    0x1F3: "QGMMA",
    0x1EA: "UTCMMA",
    0x023: "FFMA",
}
INSTRUCTION = 16
CERTAIN = 8  # letters
# Container and entry as images/device_code/containers.py has them.
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_ELF, _SECTION = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ")
_MOST_UNPACKED = 1 << 30


class Unread(ValueError):
    """Machine code that cannot be read here, and why."""


def unpack_lz4(packed: bytes, size: int) -> bytes:
    """A block of LZ4 (lz4_Block_format.md) that becomes ``size`` bytes. Raises Unread."""
    out, at, end = bytearray(), 0, len(packed)
    try:
        while at < end:
            token = packed[at]
            at += 1
            literals = token >> 4
            if literals == 15:
                while (more := packed[at]) == 255:
                    literals, at = literals + 255, at + 1
                literals, at = literals + more, at + 1
            out += packed[at : at + literals]
            at += literals
            if at >= end or len(out) >= size:
                break
            back = packed[at] | packed[at + 1] << 8
            at += 2
            length = token & 15
            if length == 15:
                while (more := packed[at]) == 255:
                    length, at = length + 255, at + 1
                length, at = length + more, at + 1
            length += 4
            begin = len(out) - back
            if begin < 0 or not back or len(out) + length > size:
                raise Unread("a block of LZ4 points outside of itself")
            if back >= length:
                out += out[begin : begin + length]
            else:
                out += (out[begin:] * (length // back + 1))[:length]
    except IndexError as error:
        raise Unread("a block of LZ4 ends too soon") from error
    if len(out) != size:
        raise Unread(f"a block of LZ4 became {len(out)} bytes, {size} were said")
    return bytes(out)


def payload(view: Any, entry: Entry, named: str) -> bytes:
    """An entry's cubin, unpacked; nothing where no function of it can have ``named`` in its name. Raises Unread.

    LZ4 leaves a word as it is where it comes first, or cuts it: then its end is missed, not its beginning. So a packed
    entry without the first letters of ``named`` is not unpacked: what takes a second for each 20 MB.
    """
    head = _ENTRY.unpack_from(view, entry.offset)
    packed, unpacked = head[4], head[13]
    begin = entry.offset + entry.header_size
    if not entry.compression:
        return bytes(view[begin : begin + entry.size])
    if not 0 < packed <= entry.size or unpacked > _MOST_UNPACKED:
        raise Unread(f"{packed} bytes that become {unpacked}")
    body = bytes(view[begin : begin + packed])
    if named and entry.compression == "lz4" and named[:CERTAIN].encode() not in body:
        return b""
    if entry.compression == "lz4":
        return unpack_lz4(body, unpacked)
    try:  # Python 3.14, or one of its backports
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            import zstandard  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise Unread("it is compressed with zstd, which this Python does not read") from error
        return bytes(zstandard.ZstdDecompressor().decompress(body, max_output_size=unpacked))
    return bytes(zstd.decompress(body))


def functions(cubin: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and machine code of each function of a cubin; nothing of none. Raises Unread."""
    if not cubin:
        return
    if len(cubin) < _ELF.size or cubin[:6] != b"\x7fELF\x02\x01":
        raise Unread("no cubin")
    head = _ELF.unpack_from(cubin, 0)
    at, each, count, named = head[6], head[11], head[12], head[13]
    if each != _SECTION.size or at + each * count > len(cubin) or named >= count:
        raise Unread("a cubin whose sections are not in it")
    sections = list(_SECTION.iter_unpack(cubin[at : at + each * count]))
    names = sections[named][4]
    for section in sections:
        begin = names + section[0]
        if cubin[begin : begin + 6] == b".text.":
            name = cubin[begin + 6 : cubin.index(b"\0", begin)].decode("latin-1")
            yield name, cubin[section[4] : section[4] + section[5]]


def count(code: bytes, arch: int) -> Counter[str]:
    """Instructions of a function for a card (75 is 7.5), and those of `OPERATIONS` by name."""
    words = memoryview(code[: len(code) // INSTRUCTION * INSTRUCTION]).cast("Q")[::2]
    counted = Counter(word & 0x1FF for word in words)
    found: Counter[str] = Counter({"instructions": len(words), "functions": 1})
    for operation, name in (VOLTA if arch < 75 else OPERATIONS).items():
        if counted[operation]:
            found[name] += counted[operation]
    return found


def best_code(entries: Iterable[Entry], card: int) -> tuple[Entry, ...]:
    """The machine code that a card runs, by the driver's rule: of its generation, the newest that is not above it."""
    running = [
        entry
        for entry in entries
        if entry.kind == SASS
        and (entry.arch == card if entry.suffix == "a" else entry.arch // 10 == card // 10 and entry.arch <= card)
    ]
    newest = max((entry.arch for entry in running), default=0)
    return tuple(entry for entry in running if entry.arch == newest)


def count_library(path: Path, archs: Sequence[str], named: str) -> tuple[dict[str, dict[str, int]], list[str]]:
    """What a library's functions with ``named`` in their names count, by card, and what could not be read."""
    found: dict[str, dict[str, int]] = {}
    unread: list[str] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        entries = read(view, path.name).entries
        for arch in archs:
            card = int(arch.replace(".", ""))
            total: Counter[str] = Counter()
            for entry in best_code(entries, card):
                try:
                    for name, code in functions(payload(view, entry, named)):
                        if named in name:
                            total.update(count(code, entry.arch))
                except (Unread, struct.error) as error:
                    unread.append(f"{path.name} for {arch}: {error}")
            if total:
                found[arch] = dict(total)
    return found, list(dict.fromkeys(unread))


def main(named: str, globs: str, *archs: str) -> int:
    """Print the counts of the libraries below site-packages that are meant."""
    told: dict[str, Any] = {"libraries": {}, "unread": []}
    site = Path(sysconfig.get_paths()["platlib"])
    for path in sorted({path for glob in globs.split() for path in site.glob(glob)}):
        found, unread = count_library(path, archs, named)
        told["unread"] += unread
        told["libraries"][str(path.relative_to(site))] = found
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
