"""One kernel wheel, from its source distribution to a checked wheel with its record beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from images.kernels.inside import compiling, source, toolchain, verify
from images.kernels.inside.costs import cost
from images.kernels.inside.failure import REFUSED, Failure, say
from images.kernels.inside.limits import TooSmall, jobs_for, limits
from images.kernels.inside.order import Order, Spent

SCHEMA = 1


def build(order: Order) -> Path:
    """Compile, check, and put wheel and kernel.json into ``order.out``; nothing is put there otherwise.

    Raises Failure.
    """
    if order.package == "flash-attn" and any(float(arch) < 8 for arch in order.archs):
        raise Failure("flash-attn has no code below 8.0 (matrix.yaml, rule flash-attn-needs-ampere)", REFUSED)
    tools = toolchain.find(order.cuda)
    record = cost(order.package)
    try:
        jobs = jobs_for(record.memory, limits(), order.jobs)
    except TooSmall as small:
        raise Failure(f"{order.title}: {small}", REFUSED) from small
    env = compiling.environment(order, tools.home, jobs)
    archive = source.obtain(
        order.package, order.version, given=order.sdist, lock=order.lock, keep=order.cache / "sources", env=env
    )
    tree = source.unpack(archive, order.work)
    spent = Spent.read(order.work)
    say(f"{order.title}: compiling for {' '.join(order.archs)}, {jobs} jobs, nvcc {tools.nvcc}, torch {tools.torch}")
    try:
        wheel = compiling.compile_package(order, tree, env, tools, jobs, record, spent)
    finally:
        spent.write(order.work)
    found = verify.check(
        wheel, verify.Wanted(order.package, order.version, order.archs, order.env), tools, record.wheel, env
    )
    facts = {
        "schema": SCHEMA,
        "package": order.package,
        "version": order.version,
        "source_sha256": source.digest(archive),
        "torch": tools.torch,
        "cuda": tools.cuda,
        "nvcc": tools.nvcc,
        "gcc": tools.gcc,
        "python": tools.python,
        "cxx11_abi": tools.cxx11_abi,
        "archs": list(order.archs),
        "env": dict(order.env),
        "jobs": jobs,
        "seconds": round(spent.seconds, 1),
        "cpu_seconds": round(spent.cpu, 1),
        "peak_memory_bytes": spent.peak,
        "objects": compiling.objects(tree),
        "compiled": spent.compiled,
        "wheel": wheel.name,
        "size": wheel.stat().st_size,
        "sha256": source.digest(wheel),
        "audit": found,
    }
    return deliver(wheel, facts, order.out)


def deliver(wheel: Path, facts: Mapping[str, object], out: Path) -> Path:
    """Wheel and kernel.json in ``out``, kernel.json last."""
    out.mkdir(parents=True, exist_ok=True)
    placed = out / wheel.name
    shutil.copyfile(wheel, placed)
    (out / "kernel.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return placed
