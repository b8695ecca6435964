"""The one place that starts processes: argument lists, never shell strings."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from images.core.errors import CardstockError
from images.core.python310 import NEW_GROUP

TAIL_LINES = 40
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Finished:
    """A process that ended: its argument list, exit code, and text of stdout and stderr."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str


class ProcessFailed(CardstockError):
    """A process exited with a code the caller did not expect; the end of its output is in the message."""

    def __init__(self, argv: Sequence[str], code: int, tail: str, *, do: str = "", where: str = "") -> None:
        super().__init__(
            f"{argv[0]} exited with {code}: {shlex.join(argv)}",
            cause=tail.strip() or "it printed nothing",
            do=do,
            where=where,
        )
        self.code = code
        self.tail = tail


def _environment(extra: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if extra is None else {**os.environ, **extra}


def _start(
    argv: Sequence[str], *, cwd: Path | None, env: Mapping[str, str] | None, stdin: int, stderr: int
) -> subprocess.Popen[str]:
    """Start in a process group of its own, so that what it starts in turn can be ended with it."""
    try:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=_environment(env),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
            **NEW_GROUP,
        )
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise ProcessFailed(argv, code, f"{error.filename}: {error.strerror}") from error


def _end(child: subprocess.Popen[str], *numbers: signal.Signals) -> None:
    """Signal the child's whole group (docker runs buildx as a child of its own) until the child has ended."""
    for number in numbers:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=10)
            return


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> Finished:
    """Run to the end and capture. ``env`` is added to this process's environment; ``timeout`` is in seconds.

    Raises ProcessFailed on a non-zero exit (unless ``check`` is false), on a timeout and on a missing program.
    """
    source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    child = _start(argv, cwd=cwd, env=env, stdin=source, stderr=subprocess.PIPE)
    with child:
        try:
            out, err = child.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _end(child, signal.SIGKILL)
            raise ProcessFailed(argv, 124, f"no end after {timeout:g} s") from error
        except BaseException:
            _end(child, signal.SIGTERM, signal.SIGKILL)
            raise
    finished = Finished(tuple(argv), child.returncode, out, err)
    if check and finished.code:
        raise ProcessFailed(argv, finished.code, "\n".join((finished.err or finished.out).splitlines()[-TAIL_LINES:]))
    return finished


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> int:
    """Run, hand each line of stdout+stderr to ``on_line`` as it comes, return the exit code.

    Raises ProcessFailed as `run` does, with the last lines in the message. A KeyboardInterrupt, or whatever else
    ``on_line`` raises, ends the child and its children too.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    expired = threading.Event()
    child = _start(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    def expire() -> None:
        expired.set()
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, expire) if timeout else None
    if timer:
        timer.start()
    with child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                tail.append(line.rstrip("\n"))
                on_line(line.rstrip("\n"))
            code = child.wait()
        except BaseException:
            _end(child, signal.SIGTERM, signal.SIGKILL)
            raise
        finally:
            if timer:
                timer.cancel()
    if expired.is_set():
        raise ProcessFailed(argv, 124, "\n".join([*tail, f"no end after {timeout:g} s"]))
    if check and code:
        raise ProcessFailed(argv, code, "\n".join(tail))
    return code


def pump(argv: Sequence[str], source: Iterable[bytes], take: Callable[[bytes], object]) -> None:
    """Run a filter: the chunks of ``source`` go in, ``take`` gets what comes out, chunk by chunk.

    Raises ProcessFailed as `run` does; what ``source`` or ``take`` raises ends the process and is raised here.
    """
    broken: list[BaseException] = []
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(
                list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, **NEW_GROUP
            )
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            raise ProcessFailed(argv, code, f"{error.filename}: {error.strerror}") from error

        def feed() -> None:
            assert child.stdin is not None
            try:
                for chunk in source:
                    child.stdin.write(chunk)
            except BrokenPipeError:
                pass  # it has ended: its exit code says why
            except BaseException as error:
                broken.append(error)
                child.kill()
            finally:
                with suppress(BrokenPipeError):
                    child.stdin.close()

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        assert child.stdout is not None
        try:
            while chunk := child.stdout.read(_CHUNK):
                take(chunk)
        except BaseException:
            child.kill()
            raise
        finally:
            child.wait()
            feeder.join()
            child.stdout.close()
        if broken:
            raise broken[0]
        if child.returncode:
            errors.seek(0)
            told = errors.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
            raise ProcessFailed(argv, child.returncode, "\n".join(told))


def start_daemon(argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> int:
    """Start a process that outlives this one, in its own session, output appended to ``log``; its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            list(argv),
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
            # The folder this was typed in may be removed while the daemon lives, and what it starts would break.
            cwd="/",
        )
    return child.pid
