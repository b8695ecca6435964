"""A package's own build, run behind the compiler cache, inside the order's limits."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from images.kernels.inside import caches, compile, toolchain
from images.kernels.inside.costs import Cost
from images.kernels.inside.failure import STOPPED, Failure, say
from images.kernels.inside.order import Order, Spent


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


def compile_package(
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
            shutil.rmtree(order.work / "dist", ignore_errors=True)
            compile.run(
                build_command(order.package, order.work / "dist"),
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


def build_command(package: str, dist: Path) -> list[str]:
    """What makes a package's wheel in the folder ``dist``: its own setup.py, or a program here where it has none."""
    if package == "flashinfer":
        return [sys.executable, "-BP", str(Path(__file__).with_name("jit_cache.py")), str(dist)]
    return [sys.executable, "setup.py", "bdist_wheel", "--dist-dir", str(dist)]


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
