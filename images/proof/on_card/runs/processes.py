"""Processes of this machine, as /proc tells them. Standard library only."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def process_tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                after = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                children.setdefault(int(after[1]), []).append(int(entry.name))
    out, left = [], [pid]
    while left:
        out.append(left.pop())
        left += children.get(out[-1], [])
    return out
