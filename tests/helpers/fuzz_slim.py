"""A mutation loop over slimming: damaged headers must be refused or slimmed, and an error must change nothing.

    PYTHONPATH=. python tests/helpers/fuzz_slim.py --runs 500000 [--seed 1] [--library SMALL_REAL_LIBRARY.so]...

Each execution writes a few damaged words into the headers, tables or device code headers of a seed, and slims that
file for one or two cards. What counts as a failure: any exception but SlimRefused, a run above a second, a file that
differs after a refusal, something left beside it, or a slimmed file that slimming would change again.

Done: --runs 600000 --seed 1 (234,548 slimmed, 311,309 refused, 54,143 without device code), and --runs 60000 --seed 2
with torchaudio 2.6.0's libtorchaudio.so and cupy 14.2.0's _bit_generator as seeds: no failure.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from images.device_code.choose import CONTAINER, Wanted, read_containers
from images.device_code.layout import SlimRefused, device_sections, read_layout
from images.device_code.slim import slim_library
from tests.helpers.elf_files import PTX, Code, container, library, sm

NASTY = (0, 1, 2, 7, 8, 16, 24, 0x1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 63, (1 << 64) - 1)
CARDS = tuple(Wanted(number) for number in (75, 80, 86, 90, 100, 120))


def seeds() -> list[bytes]:
    """Small libraries of every form that slimming knows."""
    big = container(Code(75, size=9000), Code(80, size=9000), Code(90, kind=PTX, size=4096))
    return [
        library([big, sm(75, 80, 86), sm(70, 90)]),
        library([big, big, sm(80)], relr=True),
        library([sm(90, 100), big], section="__nv_relfatbin", pad=5000, tail=b"x" * 9000),
    ]


def places(content: bytes) -> list[int]:
    """Offsets of bytes worth damaging: all headers and tables, and the headers of containers and entries."""
    layout = read_layout(content)
    offsets = [*range(64), *range(layout.phoff, layout.phoff + 56 * len(layout.segments))]
    offsets += range(layout.shoff, layout.shoff + 64 * len(layout.sections))
    for segment in layout.segments:
        if segment.kind == 2:
            offsets += range(segment.offset, min(segment.end, segment.offset + 1024))
    for section in layout.sections[1:]:
        if section.name in (".rela.dyn", ".relr.dyn", ".nvFatBinSegment", ".shstrtab", ".strtab"):
            offsets += range(section.offset, min(section.end, section.offset + 4096))
    for _, section in device_sections(layout):
        for one in read_containers(content, section):
            offsets += range(one.offset, one.offset + CONTAINER.size)
            for entry in one.entries:
                offsets += range(entry.offset, entry.offset + 64)
    return offsets


def damage(content: bytearray, where: list[int], dice: random.Random) -> None:
    """Change one to four places: a bit, a byte, a word of a nasty value, a word copied from elsewhere, or cut it."""
    for _ in range(dice.choice((1, 1, 1, 2, 3, 4))):
        at = dice.choice(where)
        way = dice.randrange(20)
        if way < 6:
            content[at] ^= 1 << dice.randrange(8)
        elif way < 9:
            content[at] = dice.randrange(256)
        elif way < 19:
            value = dice.choice(NASTY) if way < 15 else dice.choice((dice.choice(where), len(content) - at))
            form = dice.choice(("<Q", "<I", "<H"))
            size = struct.calcsize(form)
            at = min(at & -size, len(content) - size)
            struct.pack_into(form, content, at, value & ((1 << 8 * size) - 1))
        else:
            del content[dice.choice(where) + 1 :]
            return


def one_run(path: Path, content: bytes, cards: list[Wanted]) -> str:
    """Slim ``content`` at ``path``; what came of it. Raises AssertionError for what must not be."""
    path.write_bytes(content)
    begun = time.perf_counter()
    try:
        report = slim_library(path, cards)
        result = "no device code" if report is None else "slimmed" if report.changed else "nothing to do"
    except SlimRefused:
        result = "refused"
    assert time.perf_counter() - begun < 1, "a run above a second"
    if result == "slimmed":
        now = path.read_bytes()
        slim_library(path, cards)
        assert path.read_bytes() == now, "slimming again changed the file"
    else:
        assert path.read_bytes() == content, f"{result}, and the file is another"
    assert os.listdir(path.parent) == [path.name], "something was left beside the file"  # noqa: PTH208 - faster
    return result


def main() -> int:
    """Run until done or a failure, whose input is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--library", type=Path, action="append", default=[])
    words = parser.parse_args()
    dice = random.Random(words.seed)  # noqa: S311 - repeatable, not secret
    made = [(content, places(content)) for content in [*seeds(), *(path.read_bytes() for path in words.library)]]
    outcomes: Counter[str] = Counter()
    begun = time.perf_counter()
    os.fsync = lambda fd: None  # half a million of them would wear the disk, and nothing here loses power
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder, "library.so")
        for _ in range(words.runs):
            content, where = dice.choice(made)
            broken = bytearray(content)
            damage(broken, where, dice)
            try:
                outcomes[one_run(path, bytes(broken), dice.sample(CARDS, dice.choice((1, 2))))] += 1
            except Exception:
                Path("fuzz-slim-failure.so").write_bytes(broken)
                print(f"after {sum(outcomes.values())} runs: the input is fuzz-slim-failure.so", file=sys.stderr)
                raise
    print(f"{sum(outcomes.values())} executions in {time.perf_counter() - begun:.0f} s: {dict(outcomes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
