"""What an engine that was killed leaves running: the shims of its containers, and what runs in those."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from images.core import Layout

_SHIM = "containerd-shim"


def left_running(layout: Layout, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """Process ids: what runs in containers of this engine first, then their shims. None while no container runs."""
    parents, shims = dict[int, int](), set[int]()
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            pid = int(folder.name)
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            stat = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            parents[pid] = int(stat[1])
            if _SHIM in words[0] and any(Path(word).is_relative_to(layout.exec) for word in words if word[:1] == "/"):
                shims.add(pid)
    inside = [pid for pid, parent in parents.items() if parent in shims and pid not in shims]
    return (*inside, *sorted(shims))
