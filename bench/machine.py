"""Where and when a bench runs: the machine, how busy it is, the commit, the inputs of images."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from bench.record import BenchMachine, RunConditions
from images.build import input_hash
from images.core import UTC, process
from images.render import Checkout

PROC = Path("/proc")


def read_bench_machine(proc: Path = PROC) -> BenchMachine:
    """This machine."""
    processor = _field(proc / "cpuinfo", "model name") or platform.processor() or platform.machine()
    memory = int((_field(proc / "meminfo", "MemTotal") or "0").split()[0]) * 1024
    return BenchMachine(processor, os.cpu_count() or 1, memory, platform.system(), platform.python_version())


def _field(path: Path, name: str) -> str:
    """The first value of "name : value" in a file of /proc, or "" where the system has no such file or line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def processor_times(proc: Path = PROC) -> tuple[float, float]:
    """Ticks that all processors were busy, and all their ticks, since the machine started (proc(5), /proc/stat)."""
    try:
        numbers = [float(word) for word in (proc / "stat").read_text(encoding="utf-8").split("\n")[0].split()[1:9]]
    except OSError:
        return 0.0, 0.0
    idle = sum(numbers[3:5])  # idle and waiting for a disk
    return sum(numbers) - idle, sum(numbers)


def busy_share(
    *, times: Callable[[], tuple[float, float]] = processor_times, sleep: Callable[[float], None] = time.sleep
) -> float:
    """The share of the processors that is in use now, looked at for two seconds in which this process does nothing."""
    busy, every = times()
    sleep(2)
    later, all_later = times()
    return round((later - busy) / (all_later - every), 2) if all_later > every else 0.0


def commit(root: Path) -> str:
    """The commit, "-dirty" where tracked files differ from it; "unknown" outside of a git checkout."""
    try:
        return process.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], cwd=root
        ).out.strip()
    except process.ProcessFailed:
        return "unknown"


def inputs(checkout: Checkout) -> str:
    """12 digits of a hash over everything that images are made of, of all stacks together."""
    files = {path: text.encode() for path, text in checkout.generated().items()}
    files |= checkout.input_files("")
    files |= {path.name: path.read_bytes() for path in sorted(checkout.locks.glob("*.txt"))}
    return input_hash(files)[:12]


def run_conditions(checkout: Checkout) -> RunConditions:
    """All of it, now."""
    busy = busy_share()
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return RunConditions(read_bench_machine(), busy, now, commit(checkout.root), inputs(checkout))
