"""One kernel wheel, from its source distribution to a checked wheel with its record beside it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from images.kernels.inside import caches, compile, source, toolchain, verify
from images.kernels.inside.costs import Cost, cost
from images.kernels.inside.failure import REFUSED, STOPPED, Failure, say
from images.kernels.inside.limits import TooSmall, jobs_for, limits

SCHEMA = 1


@dataclass(frozen=True)
class Order:
    """What to build, and where. ``work`` is kept: the same order goes on from what lies there.

    ``cache`` is the folder of compiler cache, source distributions and logs; ``programs`` a folder with sccache;
    ``secrets`` a folder with the site's ``ca``, ``pip`` and ``sccache`` files, all optional. ``seconds`` limits a run.
    """

    package: str
    version: str
    cuda: str
    archs: tuple[str, ...]
    env: Mapping[str, str]
    work: Path
    out: Path
    cache: Path
    programs: Path
    secrets: Path
    lock: Path | None = None
    sdist: Path | None = None
    jobs: int | None = None
    seconds: float | None = None

    @property
    def title(self) -> str:
        """The package as people name it."""
        return f"{self.package} {self.version}"


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
    env = environment(order, tools.home, jobs)
    archive = source.obtain(
        order.package, order.version, given=order.sdist, lock=order.lock, keep=order.cache / "sources", env=env
    )
    tree = source.unpack(archive, order.work)
    spent = Spent.read(order.work)
    say(f"{order.title}: compiling for {' '.join(order.archs)}, {jobs} jobs, nvcc {tools.nvcc}, torch {tools.torch}")
    try:
        wheel = _compile(order, tree, env, tools, jobs, record, spent)
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
        "objects": objects(tree),
        "compiled": spent.compiled,
        "wheel": wheel.name,
        "size": wheel.stat().st_size,
        "sha256": source.digest(wheel),
        "audit": found,
    }
    return deliver(wheel, facts, order.out)


@dataclass
class Spent:
    """What a wheel took so far, in all runs: seconds, processor seconds, compiler runs, the largest one in bytes."""

    seconds: float = 0.0
    cpu: float = 0.0
    compiled: int = 0
    peak: int = 0

    @staticmethod
    def read(work: Path) -> Spent:
        """What earlier runs in this folder spent."""
        try:
            return Spent(**json.loads((work / "spent.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Spent()

    def write(self, work: Path) -> None:
        """Leave it for the next run."""
        (work / "spent.json").write_text(json.dumps(self.__dict__), encoding="utf-8")


def environment(order: Order, home: str, jobs: int) -> dict[str, str]:
    """The environment of everything that is started: the order's own, the toolkit first on PATH, the site's files."""
    env = os.environ | dict(order.env)
    env |= {
        "CUDA_HOME": home,
        "PATH": f"{home}/bin:{Path(sys.executable).parent}:{env.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
        "MAX_JOBS": str(jobs),
        "CARDSTOCK_STOP": str(order.work / "stop"),
    }
    for variable, name in {"PIP_CERT": "ca", "PIP_CONFIG_FILE": "pip"}.items():
        if (order.secrets / name).is_file() and (order.secrets / name).stat().st_size:
            env[variable] = str(order.secrets / name)
    return env


def _compile(
    order: Order,
    tree: Path,
    env: dict[str, str],
    tools: toolchain.Toolchain,
    jobs: int,
    record: Cost,
    spent: Spent,
) -> Path:
    """Run the package's own build behind the compiler cache. Raises Failure, its log shown."""
    began, since = time.monotonic(), time.time()
    logs = order.cache / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{order.package}{order.version}-torch{tools.torch}-{'_'.join(order.archs)}.log"
    progress = compile.Progress()

    def on_line(line: bytes) -> None:
        if progress.read(line):
            passed = time.monotonic() - began
            rest = compile.left(progress, passed, record.seconds * len(order.archs) / jobs)
            say(f"{order.package} [{progress.done}/{progress.total}] after {passed:.0f} s, about {rest:.0f} s to go")

    usage, taken = caches.Usage(), compile.Taken()
    found = caches.find(order.cache, str(order.programs), order.secrets / "sccache")
    try:
        with ExitStack() as stack:
            if found:
                inputs = (f"{tools.home}/nvvm/bin/cicc", f"{tools.home}/bin/ptxas", os.path.realpath("/usr/bin/g++"))
                env |= stack.enter_context(caches.serving(found, inputs, usage))
            env |= wrappers(order.work / "bin", tools.home)
            argv = [sys.executable, "setup.py", "bdist_wheel", "--dist-dir", str(order.work / "dist")]
            shutil.rmtree(order.work / "dist", ignore_errors=True)
            compile.run(
                argv,
                cwd=tree,
                env=env,
                log=log,
                seconds=order.seconds,
                stop=order.work / "stop",
                on_line=on_line,
                taken=taken,
            )
    except Failure as failure:
        if failure.code != STOPPED:
            compile.show(log)
        raise Failure(f"{order.title}: {failure} (log: {log})", failure.code) from failure
    finally:
        spent.seconds += time.monotonic() - began
        spent.compiled += objects(tree, since) if usage.compiled is None else usage.compiled
        spent.cpu += usage.cpu + taken.cpu
        spent.peak = max(spent.peak, usage.peak, 0 if found else taken.peak)
    (wheel,) = (order.work / "dist").glob("*.whl")
    return wheel


def wrappers(folder: Path, home: str) -> dict[str, str]:
    """Programs in the compilers' places (wrapper.py), and the variables by which torch's build finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).with_name("wrapper.py")
    # torch asks a C++ compiler's name: it must end like one.
    for name, kind, real in (("nvcc", "nvcc", f"{home}/bin/nvcc"), ("g++", "c++", "/usr/bin/g++")):
        text = f'#!/bin/sh\nexec {sys.executable} -SEB {script} {kind} {real} "$@"\n'
        path = folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    return {"PYTORCH_NVCC": str(folder / "nvcc"), "CXX": str(folder / "g++")}


def objects(tree: Path, since: float = 0.0) -> int:
    """How many objects the package's build has made, since a time in seconds of the epoch."""
    found = (path for folder in tree.glob("build/temp*") for path in folder.rglob("*.o"))
    return sum(1 for path in found if path.stat().st_mtime >= since)


def deliver(wheel: Path, facts: Mapping[str, object], out: Path) -> Path:
    """Wheel and kernel.json in ``out``, kernel.json last."""
    out.mkdir(parents=True, exist_ok=True)
    placed = out / wheel.name
    shutil.copyfile(wheel, placed)
    (out / "kernel.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return placed
