"""Layers: what all cards of a stack share, apart from what differs per card; torch apart from the rest.

Run in builder stages, standard library only:

    python -m images.device_code.layers shared SITE             leave in SITE only what every card has in common
    python -m images.device_code.layers strip SITE              take out of libraries what no loader maps
    python -m images.device_code.layers difference NEW OLD OUT  copy to OUT what NEW has beyond OLD, or differently
    python -m images.device_code.layers only SITE WHOLE NAME...     leave these distributions' files, nothing else
    python -m images.device_code.layers without SITE WHOLE NAME...  leave everything but theirs
    python -m images.device_code.layers apart OUT WHOLE TO NAME...  move their files from OUT to TO

OUT and TO are environments (with lib/ and bin/ in them), the others site-packages. Whose a file is, the RECORDs of
WHOLE say: those of SITE may be gone already.
"""

from __future__ import annotations

import filecmp
import mmap
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
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


def environment(site: Path) -> Path:
    """The folder of an environment, of its site-packages: /opt/venv of /opt/venv/lib/python3.11/site-packages."""
    return site.parents[2]


def files_of(site: Path, names: Collection[str]) -> set[Path]:
    """The files of these distributions, as paths below the environment that ``site`` is in.

    Those that a RECORD has, and the bytecode beside a source of theirs, which installers need not record.
    """
    root = environment(site.resolve())
    found = {path.relative_to(root) for path, owner in owners(site.resolve()).items() if owner.name in names}
    sources = {path.with_suffix("") for path in found if path.suffix == ".py"}
    for path in site.resolve().rglob("__pycache__/*.pyc"):
        below = path.relative_to(root)
        if below.parents[1] / below.name.split(".", 1)[0] in sources:
            found.add(below)
    return found


def entries(folder: Path) -> Iterator[Path]:
    """Every file and link below ``folder``, as paths below it; a link to a folder is one link."""
    for root, folders, files in os.walk(folder):
        for name in [*files, *(f for f in folders if Path(root, f).is_symlink())]:
            yield Path(root, name).relative_to(folder)


def leave(folder: Path, kept: Collection[Path]) -> int:
    """Delete from ``folder`` all but ``kept`` (paths below it) and what is empty then; the number of what went."""
    gone = [path for path in entries(folder) if path not in kept]
    for path in gone:
        (folder / path).unlink()
    drop_empty(folder)
    return len(gone)


def drop_empty(folder: Path) -> None:
    """Delete the empty folders below ``folder``."""
    for root, _, _ in os.walk(folder, topdown=False):
        if root != str(folder):
            with suppress(OSError):  # not empty
                Path(root).rmdir()


def apart(out: Path, theirs: Collection[Path], target: Path) -> int:
    """Move the files ``theirs`` from ``out`` to ``target``, which is made; the number moved."""
    target.mkdir(parents=True, exist_ok=True)
    moved = [path for path in entries(out) if path in theirs]
    for path in moved:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).rename(target / path)
    drop_empty(out)
    return len(moved)


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
        case ["only", site, whole, *names]:
            count = leave(environment(Path(site)), files_of(Path(whole), names))
            print(f"layers: {count} files that are not of {', '.join(names)} taken out")
        case ["without", site, whole, *names]:
            theirs = files_of(Path(whole), names)
            kept = {path for path in entries(environment(Path(site))) if path not in theirs}
            count = leave(environment(Path(site)), kept)
            print(f"layers: {count} files of {', '.join(names)} taken out")
        case ["apart", out, whole, target, *names]:
            count = apart(Path(out), files_of(Path(whole), names), Path(target))
            print(f"layers: {count} files of {', '.join(names)} set apart")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
