"""Lock states of a matrix's stacks: what each lock is asked for, and whether it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from images.matrix import Backend, Matrix, extra_kernels
from images.render import lock
from images.render.lock import LockInputs
from images.render.lock_files import LockState

# What `invoke lock --stack` calls the locks of the kernel wheels that belong to no stack.
KERNEL_GROUP = "kernels"


def lock_inputs(matrix: Matrix, stack: str, backend: Backend) -> LockInputs:
    """What the lock of a stack's backend asks for."""
    pins = matrix.stacks[stack].backends[backend].pins
    urls: dict[str, str] = {
        package: matrix.assets[pin.origin.removeprefix("asset:")]
        for package, pin in pins.items()
        if pin.origin.startswith("asset:")
    }
    versions: dict[str, str] = {package: pin.version for package, pin in pins.items()}
    return lock.inputs_for(f"{stack}-{backend}", backend, versions, python=matrix.python, urls=urls)


def lock_indexes(matrix: Matrix, stack: str, backend: Backend) -> tuple[str, ...]:
    """Package indexes beside the default one that the pins of a stack's backend come from."""
    pins = matrix.stacks[stack].backends[backend].pins.values()
    names = dict.fromkeys(pin.origin.removeprefix("index:") for pin in pins if pin.origin.startswith("index:"))
    return tuple(matrix.indexes[name] for name in names)


def all_locks(matrix: Matrix) -> dict[str, tuple[str, Backend]]:
    """Lock name -> stack and backend."""
    return {
        f"{stack}-{backend}": (stack, backend)
        for stack, definition in matrix.stacks.items()
        for backend in definition.backends
    }


@dataclass(frozen=True)
class LockRequest:
    """What a lock asks for and where; ``group`` is its stack; ``why`` says what it needs that may be out of reach."""

    group: str
    inputs: LockInputs
    indexes: tuple[str, ...]
    why: str


def lock_requests(matrix: Matrix) -> dict[str, LockRequest]:
    """Lock name -> what it asks for: of each stack's backends, and of the kernel wheels that the matrix adds."""
    asked = {
        name: LockRequest(key[0], lock_inputs(matrix, *key), lock_indexes(matrix, *key), why_unlocked(matrix, *key))
        for name, key in all_locks(matrix).items()
    }
    for kernel in extra_kernels(matrix):
        pins = {"torch": kernel.torch, kernel.package: kernel.version}
        inputs = lock.inputs_for(kernel.lock, "vllm", pins, python=kernel.python)
        asked[kernel.lock] = LockRequest(KERNEL_GROUP, inputs, (), "never resolved")
    return asked


def lock_states(matrix: Matrix, folder: Path) -> Mapping[str, LockState]:
    """Lock name -> "locked", "stale" or "unlocked"."""
    return {name: lock.lock_state(folder, asked.inputs) for name, asked in lock_requests(matrix).items()}


def why_unlocked(matrix: Matrix, stack: str, backend: Backend) -> str:
    """What a lock that is not there needs beyond the default index; for messages."""
    pins = matrix.stacks[stack].backends[backend].pins
    needs = sorted({pin.origin for pin in pins.values() if pin.origin not in ("pypi", "source")})
    return f"needs {', '.join(needs)}" if needs else "never resolved"
