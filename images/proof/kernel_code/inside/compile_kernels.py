"""Compiles Triton kernels for cards that are not there, and says what became of each: runs in an image's container.

    python compile_kernels.py KERNELS.json --out RESULTS.json [--jobs N] [--limit SECONDS]

KERNELS.json: {"kernels": [entry…], "tasks": [[number of the kernel, "7.5"]…]}, entries as in kernel_entries.py.
RESULTS.json: {"triton": version, "results": [{"kernel", "arch", …}…]} in the tasks' order. Each task has a process of
its own, forked after everything was imported: LLVM ends a process rather than raise, and that must tell of one kernel
alone.
Exit code 0 when every task has a result, good or bad.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOLD = 600  # letters of an error

# vLLM takes Triton for missing where no driver answers, unless it is told that cards are hidden on purpose.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def compile_one(entry: dict[str, Any], arch: str) -> dict[str, Any]:
    """What one kernel comes to on one card. Raises what the compiler raises."""
    import kernel_entries  # type: ignore[import-not-found,unused-ignore]
    import triton
    from triton.backends.compiler import GPUTarget

    source, options = kernel_entries.source_of(entry)
    log = _watch_assembler()
    begun = time.monotonic()
    kernel = triton.compile(source, target=GPUTarget("cuda", int(arch.replace(".", "")), 32), options=options)
    ptx, ttir = kernel.asm["ptx"], kernel.asm["ttir"]
    return {
        "seconds": round(time.monotonic() - begun, 2),
        "shared": int(kernel.metadata.shared),
        "warps": int(kernel.metadata.num_warps),
        "dots": len(re.findall(r"\btt\.dot(?:_scaled)?\b", ttir)),
        "target": str((re.search(r"^\.target\s+(\w+)", ptx, re.M) or ["", ""])[1]),
        "assembler": log[0][-4000:] if log else "",
        "instructions": _count(ptx),
    }


def _count(ptx: str) -> dict[str, int]:
    """How often each operation stands in the PTX, by its first word: "mma", "wgmma", "tcgen05", "fma", …"""
    counts: dict[str, int] = {}
    for line in ptx.splitlines():
        match = re.match(r"\s*(?:@!?%\w+\s+)?([a-z][a-z0-9_]*)((?:\.[\w:]+)*)\s", line)
        if match and (match[1] not in ("wgmma", "tcgen05") or ".mma" in match[2]):  # those fence and wait, too
            name = match[1]
            counts[name] = counts.get(name, 0) + 1
    return counts


def _watch_assembler() -> list[str]:
    """A list that will hold what ptxas -v said: Triton hands it a file for that and removes it."""
    import subprocess

    from triton.backends import backends

    said: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(subprocess, name)

        @staticmethod
        def run(words: list[str], check: bool = False, **more: Any) -> Any:
            done = subprocess.run(words, check=False, **more)
            file = more.get("stderr")
            if file is not None and hasattr(file, "name"):
                said.append(Path(file.name).read_text(errors="replace"))
            if check:
                done.check_returncode()
            return done

    # Of Triton 3.2's backends there are two copies; this is the one at work.
    backends["nvidia"].compiler.make_cubin.__globals__["subprocess"] = Watched()
    return said


def in_own_process(entry: dict[str, Any], arch: str, out: Path, log: Path) -> int:
    """Fork; the child writes its result and its own errors. The child's id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            result = {"ok": True, **compile_one(entry, arch)}
        except BaseException as error:
            what = str(error).strip() or repr(error)
            result = {"ok": False, "error": f"{type(error).__name__}: {what}"[-TOLD:]}
        out.write_text(json.dumps(result))
        code = 0
    finally:
        os._exit(code)


def run_all(given: dict[str, Any], jobs: int, limit: float) -> list[dict[str, Any]]:
    """Every task's result, ``jobs`` of them at once."""
    tasks = [(int(kernel), str(arch)) for kernel, arch in given["tasks"]]
    results: dict[int, dict[str, Any]] = {}
    running: dict[int, tuple[int, float]] = {}
    left = list(range(len(tasks)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while left or running:
            while left and len(running) < jobs:
                at = left.pop(0)
                kernel, arch = tasks[at]
                child = in_own_process(given["kernels"][kernel], arch, folder / f"{at}.json", folder / f"{at}.log")
                running[child] = (at, time.monotonic())
            child, status = os.waitpid(-1, os.WNOHANG)
            if child in running:
                at, _ = running.pop(child)
                results[at] = _result(folder, at, status)
                continue
            for child, (_, begun) in running.items():
                if time.monotonic() - begun > limit:
                    os.kill(child, 9)
            time.sleep(0.02)
    return [{"kernel": kernel, "arch": arch, **results[at]} for at, (kernel, arch) in enumerate(tasks)]


def _result(folder: Path, at: int, status: int) -> dict[str, Any]:
    out, log = folder / f"{at}.json", folder / f"{at}.log"
    if out.is_file() and not status:
        read: dict[str, Any] = json.loads(out.read_text())
        return read
    said = log.read_text(errors="replace").strip()[-TOLD:] if log.is_file() else ""
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
    return {"ok": False, "error": f"the compiler ended with {how}: {said}"}


def import_modules(entries: list[dict[str, Any]]) -> None:
    """Import all that the kernels stand in, once, before processes are forked; a fault is told by each kernel's own."""
    import kernel_entries  # type: ignore[import-not-found,unused-ignore]

    for name in dict.fromkeys(entry["module"] for entry in entries if entry["module"]):
        try:
            kernel_entries.import_alone(name)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    if any(entry.get("source") for entry in entries):
        try:
            importlib.import_module("torch._inductor.runtime.triton_helpers")
        except Exception as error:
            print(f"torch._inductor: {type(error).__name__}: {error}", file=sys.stderr)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--out", required=True, help="a file, or - for the last line of what is printed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one kernel")
    words = parser.parse_args()
    sys.path.insert(0, str(HERE))
    cache = tempfile.mkdtemp(prefix="triton-cache-")
    os.environ["TRITON_CACHE_DIR"] = cache
    given = json.loads(words.kernels.read_text())
    begun = time.monotonic()
    import_modules(given["kernels"])
    import triton

    imported = round(time.monotonic() - begun, 1)
    results = run_all(given, words.jobs, words.limit)
    seconds = round(time.monotonic() - begun, 1)
    told = {"triton": triton.__version__, "imports": imported, "seconds": seconds, "results": results}
    if words.out == "-":
        print(json.dumps(told))
    else:
        Path(words.out).write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
