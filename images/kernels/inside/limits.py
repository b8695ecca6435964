"""How many compilers may run at once: what memory and cores allow, inside the limits that this process is under."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Read = Callable[[str], str | None]

CGROUP = "/sys/fs/cgroup"
# Left alone for everything that is not a compiler: the build's own Python, the compiler cache, the engine.
SPARE = 1_000_000_000


class TooSmall(Exception):
    """There is not enough memory for one compiler. The message says what is needed, what is there, what to set."""


@dataclass(frozen=True)
class Limits:
    """``memory`` in bytes that can be had now, ``cores`` at least 1."""

    memory: int
    cores: int


def read_file(path: str) -> str | None:
    """A small file's text; None if it cannot be read."""
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None


def limits(read: Read = read_file, cores: int | None = None) -> Limits:
    """What this process can have: the machine's free memory and its cores, and less where a control group says so.

    Control groups of version 2 and 1 are understood; a group without a limit says "max", or a number beyond any memory.
    """
    memory = [_free(read), *(_group_memory(read))]
    counted = len(os.sched_getaffinity(0)) if cores is None else cores
    quota = _quota(read)
    return Limits(min(memory), max(1, min(counted, quota) if quota else counted))


def _free(read: Read) -> int:
    for line in (read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo says no MemAvailable")


def _group_memory(read: Read) -> list[int]:
    """What the control group leaves, page cache not counted: it can be dropped."""
    places = (
        (f"{CGROUP}/memory.max", f"{CGROUP}/memory.current", f"{CGROUP}/memory.stat", "file"),
        (
            f"{CGROUP}/memory/memory.limit_in_bytes",
            f"{CGROUP}/memory/memory.usage_in_bytes",
            f"{CGROUP}/memory/memory.stat",
            "total_cache",
        ),
    )
    left = []
    for limit, current, stat, cached in places:
        most, used = _number(read(limit)), _number(read(current))
        if most is None or used is None:
            continue
        rows = dict(line.split() for line in (read(stat) or "").splitlines() if len(line.split()) == 2)
        left.append(max(0, most - used + int(rows.get(cached, 0))))
    return left


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdigit() else None


def _quota(read: Read) -> int | None:
    """Cores by the control group's processor time; a part of a core counts as one."""
    words = (read(f"{CGROUP}/cpu.max") or "").split()
    if len(words) != 2 or not words[0].isdigit():
        words = [(read(f"{CGROUP}/cpu/cpu.cfs_{name}_us") or "").strip() for name in ("quota", "period")]
    if not all(word.isdigit() for word in words) or not int(words[1]):
        return None
    return -(-int(words[0]) // int(words[1]))


def jobs_for(each: int, found: Limits, asked: int | None = None) -> int:
    """Compilers at once when one takes ``each`` bytes; ``asked`` overrules. Raises TooSmall."""
    if asked is not None:
        return asked
    fitting = (found.memory - SPARE) // each
    if fitting < 1:
        raise TooSmall(
            f"one compiler needs {(each + SPARE) / 1e9:.1f} GB, the builder has {found.memory / 1e9:.1f} GB: "
            "give it more memory, or set CARDSTOCK_KERNEL_JOBS=1 to try all the same"
        )
    return max(1, min(found.cores, fitting))
