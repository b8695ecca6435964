"""Finds the driver's libraries in a container that no hook of NVIDIA's has set up, and hands them on.

A CDI spec without ldconfig's hook mounts libcuda.so.1 (or libcuda.so.580.95.05 alone) and nothing else: no libcuda.so,
the loader's cache as the image has it. Then Triton, which links what it compiles with -lcuda, fails minutes after the
start; where the folder is none of the loader's own, as /usr/lib/wsl/lib or /usr/lib64, torch finds no card either. So
what is missing is made of links in a folder that may be written to: TRITON_LIBCUDA_PATH and LD_LIBRARY_PATH name it.
Standard library only: preflight asks it too.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CUDA = "libcuda.so.1"
# What the driver loads by these names: of each, a host may give the file with its version alone.
SONAMES = (CUDA, "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1", "libnvidia-nvvm.so.4")
# Where Debian's loader looks by itself (ld.so(8)), and where hosts mount a driver besides.
OWN = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib")
OTHERS = (
    *("usr/lib/wsl/lib", "usr/lib64", "lib64", "usr/local/nvidia/lib64", "usr/local/nvidia/lib"),
    *("usr/lib/x86_64-linux-gnu/nvidia/current", "usr/lib/nvidia", "run/opengl-driver/lib"),
)
FOLDER = "driver"
_CACHED = re.compile(r"\s*(\S+) \(.*\) => (/\S+)")
_MOUNTED = re.compile(r"/(libcuda|libnvidia-ml)\.so(\.\d+)+$")
_MOST = 2**20  # bytes of mountinfo, and of what ldconfig prints


@dataclass(frozen=True)
class Container:
    """What is asked of the container: its root, its mounts, its loader's cache. Tests hand in a folder tree."""

    root: Path = Path("/")
    mounts: Path = Path("/proc/self/mountinfo")
    cache: Callable[[], str] = field(default=lambda: ldconfig())

    def names(self, folder: str) -> Path:
        return self.root / folder.lstrip("/")


@dataclass(frozen=True)
class Handed:
    """Variables to set, and what to tell (one line, or "")."""

    variables: Mapping[str, str]
    told: str = ""


def hand_on(environment: Mapping[str, str], base: Path, container: Container = Container()) -> Handed:
    """Make the links that are missing below ``base``, which may be written to. Nothing of this ends a container."""
    if not environment.get("CARDSTOCK_ARCHS"):
        return Handed({})
    cached = dict(_cached(container))
    folders = [*dict.fromkeys(_folders(environment, container, cached))]
    real = {name: path for name in SONAMES if (path := _first(name, folders))}
    if CUDA not in real:
        return Handed({})
    loaded = {*map(str, _searched(environment, container))}
    lost = [n for n, path in real.items() if not (path.name == n and (str(path.parent) in loaded or n in cached))]
    linkable = (real[CUDA].parent / "libcuda.so").exists() and CUDA in cached
    triton = bool(environment.get("TRITON_LIBCUDA_PATH")) or linkable
    if triton and not lost:
        return Handed({})
    links = base / FOLDER
    try:
        _link(links, {**real, "libcuda.so": real[CUDA]})
    except OSError as error:
        return Handed({}, f"{real[CUDA]} is not where the loader looks, and {links} cannot be made: {error}; going on")
    variables = {} if triton else {"TRITON_LIBCUDA_PATH": str(links)}
    if lost:
        # The links first: a folder of the host may hold the files with their versions alone.
        first = [str(links), *(str(real[name].parent) for name in lost if str(real[name].parent) not in loaded)]
        before = environment.get("LD_LIBRARY_PATH")
        variables["LD_LIBRARY_PATH"] = ":".join([*dict.fromkeys(first), *([before] if before else [])])
    return Handed(variables, f"the driver's library is {real[CUDA]}, handed on by {' and '.join(variables)}")


def lacking(load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """Why CUDA cannot be loaded, "" where it can. No card is touched for it."""
    try:
        load(CUDA)
    except OSError as error:
        return str(error)
    return ""


def _searched(environment: Mapping[str, str], container: Container) -> Iterator[Path]:
    """The folders that the loader looks into, in its order, besides its cache."""
    for folder in (environment.get("LD_LIBRARY_PATH") or "").split(":"):
        if folder.startswith("/"):
            yield container.names(folder)
    yield from (container.names(folder) for folder in OWN)


def _folders(environment: Mapping[str, str], container: Container, cached: Mapping[str, Path]) -> Iterator[Path]:
    """Where the driver may lie, the likeliest first."""
    yield from (path.parent for name, path in cached.items() if name in SONAMES)
    yield from _searched(environment, container)
    yield from _mounted(container)
    yield from (container.names(folder) for folder in OTHERS)
    yield from sorted(container.names("usr/lib/wsl/drivers").glob("*"))


def _first(name: str, folders: list[Path]) -> Path | None:
    """The library under its own name, else the file with its version; of several versions, the newest."""
    stem = name[: name.index(".so") + 3]
    versioned = re.compile(re.escape(stem) + r"\.\d+(\.\d+)+")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
        try:
            there = [entry.name for entry in folder.iterdir() if versioned.fullmatch(entry.name)]
        except OSError:
            continue
        files = [folder / entry for entry in sorted(there, key=_version) if (folder / entry).is_file()]
        if files:
            return files[-1]
    return None


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name.partition(".so.")[2]))


def _mounted(container: Container) -> Iterator[Path]:
    """Folders with a library of the driver that is a mount of its own, as a CDI spec makes it, wherever that is."""
    try:
        with container.mounts.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST)
    except OSError:
        return
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) > 4 and _MOUNTED.search(words[4]):
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4])
            yield container.names(place).parent


def _cached(container: Container) -> Iterator[tuple[str, Path]]:
    """Of the loader's cache, the driver's libraries whose files are there."""
    for line in container.cache().splitlines():
        match = _CACHED.fullmatch(line)
        if match and match[1] in SONAMES and container.names(match[2]).is_file():
            yield match[1], container.names(match[2])


def ldconfig() -> str:
    """What the loader's cache lists, "" where that cannot be asked."""
    try:
        ran = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout[:_MOST].decode("utf-8", "replace")


def _link(folder: Path, links: Mapping[str, Path]) -> None:
    """Make each link, or point it where it belongs: the driver may be another one than at the last start."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        place, whole = folder / name, folder / f".{name}.{os.getpid()}"
        if place.is_symlink() and place.readlink() == target:
            continue
        whole.unlink(missing_ok=True)
        whole.symlink_to(target)
        whole.replace(place)
