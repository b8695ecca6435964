"""Running a package's own build: its log into a file, its progress to whoever watches, an end when the time is up."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from images.kernels.inside.failure import STOPPED, Failure

_COUNT = re.compile(rb"^\s*\[(\d+)/(\d+)\]")
# How long running compilers may go on once the time is up.
GRACE = 90.0
# A step's output in BuildKit's log ends at 2 MiB, and at 200 KiB in a second.
SHOWN, A_SECOND = 1_500_000, 100_000


@dataclass
class Progress:
    """Objects done and to do in this run of ninja, and done ``before`` it: each extension has a run of its own."""

    done: int = 0
    total: int = 0
    before: int = 0

    def read(self, line: bytes) -> bool:
        """Take a line of ninja's; whether it said something new."""
        match = _COUNT.match(line)
        if match is None or (int(match[1]), int(match[2])) == (self.done, self.total):
            return False
        if int(match[1]) <= self.done:
            self.before += self.done
        self.done, self.total = int(match[1]), int(match[2])
        return True


@dataclass
class Taken:
    """Processor seconds of a build and all that it started, and its largest process in bytes."""

    cpu: float = 0.0
    peak: int = 0


def left(progress: Progress, passed: float, expected: float) -> float:
    """Seconds that the rest should take: as fast as so far, or ``expected`` for an object before anything is done."""
    finished = progress.before + progress.done
    each = passed / finished if finished else expected
    return max(0.0, each * (progress.total - progress.done))


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    seconds: float | None = None,
    stop: Path,
    on_line: Callable[[bytes], None],
    grace: float = GRACE,
    taken: Taken,
) -> None:
    """Run a build to its end. ``log`` gets all its output, ``on_line`` every line.

    After ``seconds`` the file ``stop`` is made, which lets no new compiler start (wrapper.py); ``grace`` later the
    build is interrupted, and ended once it let another ``grace`` pass (one begun in the background of a shell ignores
    interrupts, and so do its children). ``taken`` gets what it took. Raises Failure: with the code STOPPED when the
    time was up.
    """
    stop.unlink(missing_ok=True)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("wb", buffering=0) as out:
        process = subprocess.Popen(
            argv, cwd=cwd, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        reader = threading.Thread(target=_read, args=(process, out.write, on_line), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                passed = time.monotonic() - began
                if seconds is not None and passed > seconds:
                    stop.touch()
                if seconds is not None and passed > seconds + grace:
                    os.killpg(process.pid, signal.SIGINT)
                if seconds is not None and passed > seconds + 2 * grace:
                    break
                reader.join(timeout=1.0)
        finally:
            _end(process)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            taken.peak = after.ru_maxrss * 1024
        reader.join(timeout=10.0)
    if process.returncode and stop.exists():
        raise Failure("the time is up; the same command goes on from here", STOPPED)
    if process.returncode:
        raise Failure(f"{Path(argv[0]).name} ended with code {process.returncode}")


def _read(process: subprocess.Popen[bytes], write: Callable[[bytes], object], on_line: Callable[[bytes], None]) -> None:
    assert process.stdout is not None  # noqa: S101  asked for above
    for line in process.stdout:
        # On a full disk the log ends; a pipe that nobody reads would stop the build for ever.
        with suppress(OSError):
            write(line)
        on_line(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no compiler behind."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def show(log: Path, most: int = SHOWN, a_second: int = A_SECOND) -> None:
    """A failed build's log to stdout, the only way out of a builder: all of it, or its two ends if it is longer.

    Slowly, so that BuildKit keeps it.
    """
    text = shortened(log.read_bytes(), most).decode("utf-8", "replace")
    print("kernel-build: the log of its compilers follows", flush=True)
    for start in range(0, len(text), a_second):
        print(text[start : start + a_second], end="", flush=True)
        time.sleep(1.0 if start + a_second < len(text) else 0.0)
    print("", flush=True)


def shortened(text: bytes, most: int) -> bytes:
    """The first fifth and the end of a text that is longer than ``most`` bytes."""
    if len(text) <= most:
        return text
    head = most // 5
    cut = len(text) - most
    return text[:head] + b"\n[... %d bytes left out ...]\n" % cut + text[-(most - head) :]
