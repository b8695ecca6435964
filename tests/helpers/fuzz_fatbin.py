"""Mutated libraries around real entry headers, for the reader and the audit.

By hand, for long: python -m tests.helpers.fuzz_fatbin --count 500000 [--seed 1]. It ends at the first failure, keeping
the file that made it.
"""

from __future__ import annotations

import argparse
import random
import struct
import time
from pathlib import Path

from images.device_code import audit
from images.device_code.fatbin import FatbinError, read
from tests.helpers.elf_files import library

# Taken from torchvision, cupy, torch 2.6.0 and 2.11.0, vLLM 0.8.5 and 0.25.1: one of each kind, length, suffix and
# compression seen there.
# What stands behind the flags, which nothing reads, is cut; `_whole` puts zeros there.
_REAL = """
0200010148000000e04704000000000000000000000000000700010046000000000000000000000011
020001014800000038b75b000000000032b75b000000000007000100460000000000000000000000112000000000
020001014800000000070000000000000000000000000000070001005a000000000000000000000011001000
01000101580000001801000000000000120100004800000004000800340000000000000000000000112000000000000000000000000000005d02000000000000000000000000000050
020001014000000098c531000000000094c531000000000007000100320000000000000000000000112000000000
0200010160000000e053290000000000e05329004000000008000100640000000000000000000000112020010000
0100010150000000509e5000000000004f9e5000400000000800080064000000000000000000000011200000
020001014000000098230000000000009123000000000000080001004b000000000000000000000011800000
020001017000000080050000000000007d0500004000000008000100640000000000000000000000118010010000
01000101700000003803000000000000310300004000000000000900780000000000000000000000118000000000
"""


def _whole(text: str) -> bytes:
    head = bytes.fromhex(text)
    return head.ljust(int.from_bytes(head[4:8], "little"), b"\0")


REAL_HEADERS = tuple(map(_whole, _REAL.split()))
CARDS = ((7, 0), (7, 5), (8, 9), (9, 0), (10, 0), (12, 0))
_EDGES = (0, 1, 7, 8, 15, 16, 24, 63, 64, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
_FORMATS = ("<B", "<H", "<I", "<Q")


def real_container(headers: tuple[bytes, ...], payload: int) -> bytes:
    """A container of real headers; their payloads are ``payload`` zero bytes, and said to be."""
    body = b"".join(head[:8] + struct.pack("<Q", payload) + head[16:] + bytes(payload) for head in headers)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def samples() -> list[bytes]:
    """Whole libraries to start from."""
    all_of_them = real_container(REAL_HEADERS, 8)
    singles = [real_container((head,), 0) for head in REAL_HEADERS]
    return [
        library([all_of_them, all_of_them]),
        library(singles, relr=True),
        library([real_container(REAL_HEADERS[:3], 64), real_container(REAL_HEADERS[3:], 16)]),
        library(singles[:2], section="__nv_relfatbin"),
        library(),
    ]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to six changes: a number at any place, mostly in headers; a cut; a piece copied elsewhere."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        if len(out) < 2:
            break
        how = chance.random()
        at = chance.randrange(len(out)) if how < 0.5 else chance.choice(_places(out))
        if how < 0.9:
            form = chance.choice(_FORMATS)
            size = struct.calcsize(form)
            value = chance.choice(_EDGES) if chance.random() < 0.6 else chance.getrandbits(8 * size)
            at = min(at, len(out) - size)
            if at >= 0:
                struct.pack_into(form, out, at, value & ((1 << 8 * size) - 1))
        elif how < 0.95:
            del out[at:]
        else:
            piece = out[at : at + chance.choice((8, 16, 64))]
            to = chance.randrange(len(out))
            out[to : to + len(piece)] = piece
    return bytes(out)


def _places(out: bytearray) -> list[int]:
    """Where numbers count: the ELF header, the section headers, the containers and their entries."""
    shoff = int.from_bytes(out[40:48], "little")
    places = [*range(min(64, len(out))), *range(min(shoff, len(out)), min(shoff + 600, len(out)))]
    first = out.find(b"\x50\xed\x55\xba")
    return places + list(range(max(first, 0), min(first + 1500, len(out)))) or [0]


def execute(data: bytes) -> str:
    """Read and audit ``data``; "read", "refused" or "no device code". Anything else that it raises is a failure."""
    try:
        library = read(data)
    except FatbinError as error:
        assert 0 <= error.offset <= len(data), "the offset of an error is inside the file"
        return "refused"
    for container in library.containers:
        assert container.end <= len(data)
        assert all(container.offset < entry.offset and entry.end <= container.end for entry in container.entries)
    audited = audit.audit("fuzz", [("lib.so", library)])
    audit.table(audited, CARDS)
    audit.gaps_table(audited, CARDS)
    audit.to_json(audited, CARDS)
    return "read" if library.containers else "no device code"


def main() -> None:
    """Run, and say what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311
    corpus, ends, slowest = samples(), {"read": 0, "refused": 0, "no device code": 0}, 0.0
    for _ in range(arguments.count):
        data = mutated(chance.choice(corpus), chance)
        start = time.perf_counter()
        try:
            ends[execute(data)] += 1
        except BaseException:
            Path("fuzz-failure.so").write_bytes(data)
            raise
        slowest = max(slowest, time.perf_counter() - start)
    print(f"{arguments.count} executions, seed {arguments.seed}: {ends}, slowest {slowest * 1000:.1f} ms")


if __name__ == "__main__":
    main()
