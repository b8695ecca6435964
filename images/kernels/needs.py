"""Which kernel wheels are wanted, under which keys, and where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from images.core import human_seconds
from images.kernels import remote
from images.kernels.inside import costs
from images.kernels.key import Key, key_of, source_hash
from images.kernels.store import Store, Stored
from images.matrix import Kernel
from images.registry import Repository
from images.render import LockState, lock_file_name

# In this machine's store; in the registry; to be compiled; to be compiled and never stored, for its stack has no lock.
WheelLocation = Literal["store", "registry", "not built", "unlocked"]


@dataclass(frozen=True)
class Need:
    """A kernel that is wanted, and its key; without one (its stack is not locked) it is compiled and never stored."""

    kernel: Kernel
    key: Key | None


@dataclass(frozen=True)
class WheelPlace:
    """A needed wheel and where it is; ``stored`` is its entry where that is the store."""

    need: Need
    where: WheelLocation
    stored: Stored | None = None


def needs_of(kernels: Iterable[Kernel], locks: Path, states: Mapping[str, LockState]) -> tuple[Need, ...]:
    """The kernels, each once, with their keys; reads the locks' files. ``states`` are the locks' by name."""
    out = []
    for kernel in dict.fromkeys(kernels):
        source = None
        part = locks / lock_file_name(kernel.lock, kernel.package)
        if states.get(kernel.lock) == "locked" and part.is_file():
            source = source_hash(part.read_text(encoding="utf-8"))
        out.append(Need(kernel, key_of(kernel, source) if source else None))
    return tuple(out)


def find_wheels(needs: Iterable[Need], store: Store, repository: Repository | None = None) -> tuple[WheelPlace, ...]:
    """Find where each wheel is, without reading or fetching one. Raises RegistryFailure, Unsafe."""
    here = {entry.digest: entry for entry in store.entries()}
    out = []
    for need in needs:
        if need.key is None:
            out.append(WheelPlace(need, "unlocked"))
        elif stored := here.get(need.key.digest):
            out.append(WheelPlace(need, "store", stored))
        elif repository is not None and remote.find(repository, need.key) is not None:
            out.append(WheelPlace(need, "registry"))
        else:
            out.append(WheelPlace(need, "not built"))
    return tuple(out)


def wheel_line(place: WheelPlace, repository: str, jobs: int) -> str:
    """One line for people: where a wheel is, or how long compiling it would take with ``jobs`` compilers at once."""
    name = place.need.kernel.id
    if place.where == "store":
        return f"kernel {name}: in the store"
    if place.where == "registry":
        return f"kernel {name}: in {repository}"
    seconds = costs.estimate(place.need.kernel.package, len(place.need.kernel.archs), jobs)
    return f"kernel {name}: to compile, about {human_seconds(seconds)} with {jobs} compilers at once"
