"""Mount points that a killed engine or a broken bootstrap left behind."""

from __future__ import annotations

import re
from pathlib import Path

from images.core import process

MOUNTS = Path("/proc/self/mounts")


def mounts_below(folder: Path, mounts: str) -> tuple[str, ...]:
    """Mount points at or below ``folder`` in the text of /proc/self/mounts, deepest and latest first."""
    points = [line.split()[1] for line in mounts.splitlines() if len(line.split()) > 1]
    plain = [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point) for point in reversed(points)]
    return tuple(sorted((point for point in plain if Path(point).is_relative_to(folder)), key=len, reverse=True))


def unmount_below(folder: Path) -> None:
    """Unmount all of them, so that the folder can be removed without reaching into something else."""
    for point in mounts_below(folder, MOUNTS.read_text(encoding="utf-8")):
        process.run(["umount", "--lazy", point], check=False, timeout=60)
