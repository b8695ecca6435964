"""A real registry on loopback, Debian's docker-registry: to push to, to pull from, to kill and to start again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from bench.loopback_registry import answers, free_port, registry_program
from images.core import debian, process


def program() -> Path:
    """The registry's program, unpacked once into the state directory; skips where this host has no Debian archive."""
    if debian.host_mirror() is None:
        pytest.skip("this host's apt names no Debian archive to take a registry from: not run here")
    return registry_program()


class RealRegistry:
    """One registry (``started`` is its program) with its data in ``folder``; `stop` and `start` keep port and data.

    ``auth`` is how it wants one to log in, as its own settings have it; without, it is open.
    """

    def __init__(self, started: Path, folder: Path, auth: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._program, self._pid = started, 0
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{self.port}", "secret": "of-a-test"},
            **({"auth": dict(auth)} if auth else {}),
        }
        (folder / "config.yml").write_text(yaml.safe_dump(settings))

    @property
    def host(self) -> str:
        """ "127.0.0.1:PORT"."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the registry wrote: one line a request."""
        return self.folder / "log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._pid = process.start_daemon([str(self._program), "serve", str(self.folder / "config.yml")], self.log)
        end = time.monotonic() + 30
        while not self.answers():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it answers."""
        return answers(self.port)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it as a crash does."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
        self._pid = 0

    def blob(self, digest: str) -> Path:
        """The file that holds a blob."""
        algorithm, _, name = digest.partition(":")
        return self.folder / "data/docker/registry/v2/blobs" / algorithm / name[:2] / name / "data"
