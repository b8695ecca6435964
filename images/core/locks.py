"""Locks between processes of one machine: whoever makes a thing holds its lock, and who waits is told for whom.

A lock is flock(2) on a file: it dies with its process, whatever ends it. The file stays, and says who had it last.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from images.core.home import default_layout
from images.core.typed import program_name

Say = Callable[[str], None]
_OURS = ("inv", "program.py", "cardstock")  # a process's first word, where it is this program
_SHOWN = 200  # characters of a holder's own words
_EVERY = 0.2  # seconds between two tries, where there is a limit


class LockTimeout(Exception):
    """Another process held a lock for longer than the caller would wait; its words are ``holder``."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.path, self.holder = path, holder


def lock_path(kind: str, name: str, home: Path | None = None) -> Path:
    """The lock file of a thing, such as ("pull", "sha256:…"), in the state folder."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-180:]
    return (home or default_layout().home) / "locks" / f"{kind}-{plain}"


@contextmanager
def hold(path: Path, what: str, say: Say = lambda _: None, *, seconds: float | None = None) -> Iterator[bool]:
    """Hold a lock; whether it had to be waited for, so that a caller may look again at what is there.

    ``what`` is what is waited for, as a person reads it: "the pull of …". Raises LockTimeout after ``seconds``, OSError
    where the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as handle:
        waited = not _try(handle)
        if waited:
            say(f"waiting for {what}: {_holder(handle)} is at it")
            _wait(handle, path, seconds)
        _sign(handle)
        yield waited


@contextmanager
def hold_all(kind: str, names: Sequence[tuple[str, str]], say: Say = lambda _: None) -> Iterator[bool]:
    """`hold` for several things of a kind (name, what), always in the order of their names; whether any was waited for.

    In one order for all processes, so that none waits for one that waits for it.
    """
    with ExitStack() as stack:
        waits = [stack.enter_context(hold(lock_path(kind, name), what, say)) for name, what in sorted(set(names))]
        yield any(waits)


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file or folder, if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try(handle: IO[str]) -> bool:
    return try_lock(handle.fileno())


def _wait(handle: IO[str], path: Path, seconds: float | None) -> None:
    if seconds is None:
        fcntl.flock(handle, fcntl.LOCK_EX)
        return
    end = time.monotonic() + seconds
    while not _try(handle):
        if time.monotonic() > end:
            raise LockTimeout(path, _holder(handle))
        time.sleep(_EVERY)


def _sign(handle: IO[str]) -> None:
    """Say who has it: a process id, the command without its arguments (they may hold a secret), since when."""
    handle.seek(0)
    handle.truncate()
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    started = Path(sys.argv[0]).name
    command = f"{program_name()} {name}" if started in _OURS else started or "python"
    handle.write(f"process {os.getpid()} ({command[:_SHOWN]}), since {datetime.now():%H:%M:%S}\n")
    handle.flush()


def _holder(handle: IO[str]) -> str:
    handle.seek(0)
    text = "".join(letter for letter in handle.readline(2 * _SHOWN) if letter.isprintable())
    return text.strip() or "another process"
