"""Keeps a test that claims no engine and no network to its word.

It listens to Python's own audit events, below subprocess and socket, so it sees every library in this process. It does
not see what a child process does in turn. A refusal is raised as pytest's own failure, which `except Exception` does
not swallow, and is remembered, so that one raised in a thread fails its test all the same.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ENGINE_PROGRAMS = frozenset(
    "apt apt-get buildctl buildx containerd ctr docker docker-compose dockerd dpkg mmdebstrap podman runc".split()
)
WRAPPERS = frozenset("bash chroot dash env nice nohup setsid sh sudo timeout unshare xargs".split())


def refused_program(argv: Sequence[str], path: str | None = None) -> str | None:
    """The engine program that ``argv`` would start, or None. A stand-in below the temporary folder may run."""
    head = Path(argv[0]).name
    words = [argv[0]] if head not in WRAPPERS else [word for text in argv for word in text.split()]
    for word in words:
        if Path(word).name in ENGINE_PROGRAMS and not _is_stand_in(word, path):
            return word
    return None


def _is_stand_in(program: str, path: str | None) -> bool:
    found = shutil.which(program, path=path)
    return found is None or _in_temporary_folder(found)


def _in_temporary_folder(path: str) -> bool:
    return Path(path).absolute().is_relative_to(tempfile.gettempdir())


def refused_address(address: object) -> str | None:
    """The address, as text, unless it is loopback or a Unix socket below the temporary folder."""
    if isinstance(address, str | bytes):
        path = os.fsdecode(address)
        return None if _in_temporary_folder(path) else path
    host = str(address[0]) if isinstance(address, tuple) and address else str(address)
    return None if _is_loopback(host) else host


def _is_loopback(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """One per pytest run. ``free`` is the test's marker that lifts it, or empty."""

    def __init__(self) -> None:
        self.active = False
        self.refusals: list[str] = []

    @contextmanager
    def watching(self, watch: bool) -> Iterator[None]:
        """Refuse, or not, until the end of the block; nothing is refused outside of one."""
        before, self.active = self.active, watch
        try:
            yield
        finally:
            self.active = before

    def install(self) -> None:
        """Begin to listen. Python has no way to stop, so an idle guard costs one comparison an event."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if not self.active:
            return
        if event == "subprocess.Popen":
            self._process(args)
        elif event in ("socket.connect", "socket.sendto"):
            self._refuse(refused_address(args[1]), "network")
        elif event == "socket.getaddrinfo" and args[0] is not None:
            host = args[0]
            self._refuse(refused_address((os.fsdecode(host) if isinstance(host, bytes) else host,)), "network")

    def _process(self, args: tuple[object, ...]) -> None:
        executable, argv, _, env = args
        words = [argv] if isinstance(argv, str | bytes | os.PathLike) else list(argv)  # type: ignore[call-overload]
        path = env.get("PATH") if isinstance(env, Mapping) else None
        texts = [os.fsdecode(word) for word in words]
        if isinstance(executable, str | bytes | os.PathLike):
            texts[0] = os.fsdecode(executable)
        self._refuse(refused_program(texts, path), "engine")

    def _refuse(self, thing: str | None, marker: str) -> None:
        if thing is None:
            return
        verb = "start" if marker == "engine" else "talk to"
        text = (
            f"a unit test tried to {verb} {thing!r}\n"
            f"  do: give it a stand-in (an argument, a fake in tmp_path, a server on loopback)\n"
            f"  do: or, if it is about the real thing, mark it @pytest.mark.{marker}"
        )
        self.refusals.append(text)
        pytest.fail(text, pytrace=True)
