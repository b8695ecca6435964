"""Layers: what all cards of a stack share, apart from what differs per card.

Run in builder stages, standard library only:

    python -m images.device_code.layers shared SITE             leave in SITE only what every card has in common
    python -m images.device_code.layers strip SITE              take out of libraries what no loader maps
    python -m images.device_code.layers difference NEW OLD OUT  copy to OUT what NEW has beyond OLD, or differently
"""

from __future__ import annotations

import filecmp
import mmap
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from images.device_code.bare_files import bare_files, is_bare
from images.device_code.layout import DEVICE_SECTIONS
from images.device_code.record import owners
from images.device_code.slim import elf_files, is_nvidia
from images.device_code.strip import strip_folder


def has_device_code(path: Path) -> bool:
    """Whether the file names a section of device code anywhere: no library of a card may be missed."""
    if path.stat().st_size < 64:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(name.encode()) >= 0 for name in DEVICE_SECTIONS)


def shared(site: Path) -> list[Path]:
    """Delete from ``site`` the libraries with device code and the RECORDs that name them; what went.

    NVIDIA's own stay: they are the same for every card.
    """
    owned = owners(site.resolve())
    gone: set[Path] = set()
    for path in (*elf_files(site), *bare_files(site)):
        owner = owned.get(path.resolve())
        if not is_nvidia(path, owner) and (is_bare(path) or has_device_code(path)):
            gone |= {path, owner.record} if owner else {path}
    for path in gone:
        path.unlink()
    return sorted(gone)


def difference(new: Path, old: Path, out: Path) -> int:
    """Copy to ``out`` every file and link of ``new`` that ``old`` lacks or holds otherwise; the bytes copied."""
    copied = 0
    for root, folders, files in os.walk(new):
        for name in [*files, *(f for f in folders if Path(root, f).is_symlink())]:
            path = Path(root, name)
            below = path.relative_to(new)
            if same(path, old / below):
                continue
            target = out / below
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
            copied += path.lstat().st_size
    return copied


def same(one: Path, other: Path) -> bool:
    """Whether two paths are links to one place, or files of equal bytes."""
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def main(words: Sequence[str]) -> int:
    """The command line; exit code 2 for words it does not know."""
    match list(words):
        case ["shared", site]:
            gone = shared(Path(site))
            print(f"layers: {len(gone)} files differ per card and are not shared")
        case ["strip", site]:
            count, freed = strip_folder(Path(site))
            print(f"layers: {freed / 1e6:.1f} MB that no loader maps taken out of {count} libraries")
        case ["difference", new, old, out]:
            print(f"layers: {difference(Path(new), Path(old), Path(out)) / 1e6:.1f} MB differ per card")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
