"""Getting kernel wheels: from the store, else from a registry, else compiled. A key is made once per machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from images.core import CardstockError, human_bytes
from images.kernels import remote
from images.kernels.inside import costs, limits
from images.kernels.key import Key
from images.kernels.needs import Need
from images.kernels.store import Store, Stored
from images.matrix import Kernel
from images.registry import Repository

Say = Callable[[str], None]


class Compiles(Protocol):
    """What can compile kernels."""

    def check(self, kernels: Sequence[Kernel]) -> None:
        """Raise CardstockError where these cannot be compiled here; asked once, before anything starts."""

    def compile(self, kernel: Kernel, folder: Path) -> None:
        """Leave the kernel's wheel and kernel.json in an empty folder. Raises CheckFailed with what went wrong."""


def provide(
    needs: Sequence[Need], store: Store, compiler: Compiles, repository: Repository | None, say: Say
) -> dict[Kernel, Stored]:
    """Every needed wheel that has a key, in the store at the end.

    What can be had without compiling comes first. Raises what fetching (`remote.fetch`) and compiling raise; what was
    finished before stays in the store.
    """
    found: dict[Kernel, Stored] = {}
    missing: list[tuple[Kernel, Key]] = []
    for need in needs:
        if need.key is None:
            continue
        with store.locked(need.key, say):
            stored = store.get(need.key, say)
            if stored is None and repository is not None:
                stored = remote.fetch(repository, need.key, store, say)
        if stored is None:
            missing.append((need.kernel, need.key))
        else:
            found[need.kernel] = stored
    if missing:
        compiler.check([kernel for kernel, _ in missing])
    for kernel, key in missing:
        found[kernel] = _make(kernel, key, store, compiler, say)
    return found


def _make(kernel: Kernel, key: Key, store: Store, compiler: Compiles, say: Say) -> Stored:
    """Compile a wheel, unless another process did while this one waited for its turn."""
    with store.locked(key, say):
        if stored := store.get(key, say):
            return stored
        with store.work() as folder:
            compiler.compile(kernel, folder)
            stored = store.put(key, folder)
    say(f"stored {stored.record.wheel}: {human_bytes(stored.record.size)}, key {key.digest[:12]}")
    return stored


def check_memory(kernels: Sequence[Kernel], memory: int | None) -> None:
    """Raise CardstockError before anything starts where an engine of ``memory`` bytes cannot run one compiler.

    The build itself looks again, at what is free by then (images/kernels/inside/limits.py).
    """
    for kernel in kernels:
        need = costs.cost(kernel.package).memory + limits.SPARE
        if memory is not None and memory < need:
            raise CardstockError(
                f"compiling {kernel.package} needs {human_bytes(need)} of memory, the engine has {human_bytes(memory)}",
                cause=f"one compiler takes up to {human_bytes(need - limits.SPARE)} ({kernel.id})",
                do="give the engine more memory, take the wheel from a registry (--wheels REPO), or set "
                "CARDSTOCK_KERNEL_JOBS=1 to try all the same",
            )
