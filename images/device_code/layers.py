"""Layers: what all cards of a stack share apart from what differs per card, and away with what nobody runs.

Run in builder stages, standard library only:

    python -m images.device_code.layers shared SITE             leave in SITE only what every card has in common
    python -m images.device_code.layers drop SITE GLOB...       delete files and their rows in RECORD
    python -m images.device_code.layers strip SITE              take out of libraries what no loader maps
    python -m images.device_code.layers difference NEW OLD OUT  copy to OUT what NEW has beyond OLD, or differently
"""

from __future__ import annotations

import csv
import filecmp
import mmap
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from images.device_code.layout import DEVICE_SECTIONS
from images.device_code.record import owners, replace_whole
from images.device_code.slim import elf_files, is_nvidia
from images.device_code.strip import strip_folder

# What no server of Qwen2.5-VL runs, and why. Globs below site-packages, where "*" also crosses folders.
_TESTS = "tests of the package"  # not numpy's: numpy.testing imports some of them, and scipy that
_HEADERS = "for compiling against it: there is no compiler for that here"
_PROFILER = "Triton's profiler, a program of its own: no server starts it"
UNUSED = {
    "torch/include/*": _HEADERS,
    "torch/share/cmake/*": _HEADERS,
    "torch/test/*": "torch's own C++ tests",
    "torch/bin/protoc*": "for building torch",
    "triton/backends/nvidia/bin/cuobjdump": "for looking at kernels; compiling them takes ptxas alone",
    "triton/backends/nvidia/bin/nvdisasm": "for looking at kernels; compiling them takes ptxas alone",
    "triton/_C/libproton.so": _PROFILER,
    "triton/profiler/*": _PROFILER,
    "triton/backends/nvidia/lib/cupti/*": f"{_PROFILER}; torch's profiler has CUPTI from NVIDIA's own wheel",
    "triton/instrumentation/*": "compiler passes for Triton's own tests",
    "ray/jars/*": "Ray's Java workers",
    "ray/rllib/*": "Ray's reinforcement learning",
    "ray/dashboard/client/*": "the dashboard's pages: its server needs ray[default], which no lock has",
    "mistral_common/data/*": "vocabularies of Mistral's models",
    "pycountry/locales/*": "names of countries in other languages",
    "*/lib/*.a": "static archives: for linking, not for running",
    "pyarrow/include/*": _HEADERS,
    "*.js.map": "for debugging web pages",
    "cupy/_core/include/*/tests/*": _TESTS,
    **{f"{package}/tests/*": _TESTS for package in ("llvmlite", "mpmath", "numba", "pandas", "pyarrow", "setuptools")},
    **{f"{package}/*/tests/*": _TESTS for package in ("networkx", "numba", "ray", "scipy", "sympy")},
}


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
    for path in elf_files(site):
        owner = owned.get(path.resolve())
        if not is_nvidia(path, owner) and has_device_code(path):
            gone |= {path, owner.record} if owner else {path}
    for path in gone:
        path.unlink()
    return sorted(gone)


def matching(site: Path, globs: Sequence[str]) -> Iterator[Path]:
    """Files below ``site`` whose path there matches one of ``globs`` ("*" also crosses folders)."""
    for root, _, files in os.walk(site):
        for name in files:
            path = Path(root, name)
            if any(fnmatchcase(str(path.relative_to(site)), glob) for glob in globs):
                yield path


def drop(site: Path, globs: Sequence[str]) -> int:
    """Delete what matches, the folders it leaves empty, and its rows in RECORD; the bytes given back."""
    found = sorted(matching(site, globs))
    freed = sum(path.lstat().st_size for path in found)
    owned = owners(site.resolve())
    rows: dict[Path, set[str]] = {}
    for path in found:
        if owner := owned.get(path.resolve()):
            rows.setdefault(owner.record, set()).add(owner.row)
        path.unlink()
    folders = {parent for path in found for parent in path.parents if site in parent.parents}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        with suppress(OSError):  # not empty
            folder.rmdir()
    for record, gone in rows.items():
        drop_rows(record, gone)
    return freed


def drop_rows(record: Path, gone: set[str]) -> None:
    """Take the rows of files that are gone out of a RECORD; the others stay byte for byte."""
    lines = record.read_bytes().decode("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if next(csv.reader([line]), [""])[0] not in gone]
    replace_whole(record, "".join(kept).encode("utf-8"))


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
        case ["drop", site, *globs]:
            print(f"layers: {drop(Path(site), [*UNUSED, *globs]) / 1e6:.1f} MB that nobody runs dropped")
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
