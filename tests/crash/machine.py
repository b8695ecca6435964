"""A machine of the campaign: an engine of its own, state folders, a registry, and processes that are killed."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess  # noqa: TID251 - it kills what it starts
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from images.core.home import Layout
from images.core.work import work_root
from images.docker.connection import connect
from images.docker.embedded import daemon as embedded
from images.docker.embedded.packages import cli_env
from images.docker.engine import Engine
from images.docker.owners import RUN_LABEL
from tests.engine.conftest import host_tar
from tests.helpers.matrices import ROOT
from tests.helpers.own_engine import take_programs

BASE = "crash/base:1"
LIMIT = 180.0
PROGRAMS = ("sh", "cat", "id", "sleep", "mkdir", "true")  # what the small builds run


@dataclass
class Tally:
    """How often something was killed, raced or starved, and what ended wrong."""

    tries: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    before: int = 0

    def tried(self, what: str) -> None:
        """One more."""
        self.tries[what] = self.tries.get(what, 0) + 1

    def expect(self, true: bool, what: str) -> None:
        """Count a wrong end state; the test goes on, and fails at its end."""
        if not true:
            self.wrong.append(what)

    def new(self) -> list[str]:
        """What ended wrong in this test."""
        return self.wrong[self.before :]

    def lines(self) -> list[str]:
        """What is printed: tries of each kind, then the verdict."""
        out = [f"{what}: {count} tries" for what, count in self.tries.items()]
        out += [f"WRONG: {text}" for text in self.wrong]
        return [*out, f"crash campaign: {sum(self.tries.values())} tries, {len(self.wrong)} wrong end states"]


class Child:
    """A command in a process of its own."""

    def __init__(self, words: list[str], environment: Mapping[str, str]) -> None:
        self.out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as this
        argv = [sys.executable, "-m", "tests.crash.driver", *words]
        env = {**os.environ, **environment}
        self._popen = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=self.out, stderr=subprocess.STDOUT)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def end(self, seconds: float = LIMIT) -> int:
        """Its exit code."""
        return self._popen.wait(seconds)

    @property
    def text(self) -> str:
        """What it printed."""
        self.out.seek(0)
        return self.out.read()


class Machine:
    """An engine with a data root of its own, and what is started beside it."""

    def __init__(self, home: Path, data: Path | None = None) -> None:
        self.layout = Layout(home)
        self.layout.root.mkdir(parents=True)
        if data is not None:
            self.layout.data.symlink_to(data)
        take_programs(self.layout)
        self.start()

    def start(self) -> None:
        """Start its engine, as `./inv` does where none answers."""
        embedded.start(self.layout, firewall=False)

    @property
    def environment(self) -> dict[str, str]:
        """That of a command on this machine."""
        return {"DOCKER_HOST": self.layout.endpoint, "CARDSTOCK_HOME": str(self.layout.home)}

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Its engine, connected."""
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = self.layout.endpoint
        try:
            made = connect(self.layout)
        finally:
            if before is None:
                del os.environ["DOCKER_HOST"]
            else:
                os.environ["DOCKER_HOST"] = before
        try:
            yield made
        finally:
            made.close()

    def child(self, *words: str, home: Path | None = None) -> Child:
        """A command of `tests.crash.driver`; with ``home``, as another machine beside the same engine."""
        own = {**cli_env(self.layout), "CARDSTOCK_HOME": str(home)} if home else {}  # its docker CLI is this one's
        return Child(list(words), {**self.environment, **own})

    def crash(self, *, containerd: bool = False) -> None:
        """Kill its engine as a crash does."""
        pids = [embedded.status(self.layout).pid, embedded._containerd(self.layout) if containerd else None]
        for pid in pids:
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                _gone(pid)

    def import_base(self) -> None:
        """The image that all others stand on."""
        with self.engine() as engine:
            engine.import_tar(io.BytesIO(host_tar(PROGRAMS)), BASE)

    def left(self) -> list[str]:
        """What runs have left: folders to work in, containers, working names."""
        work = work_root(self.layout.home)
        folders = [path.name for path in work.iterdir() if path.is_dir()] if work.is_dir() else []
        with self.engine() as engine:
            containers = [one.name for one in engine.containers.labelled(RUN_LABEL)]
        return [*folders, *containers]

    def end(self) -> None:
        """Stop the engine and drop all of it."""
        embedded.stop(self.layout)
        shutil.rmtree(self.layout.home, ignore_errors=True)


def _gone(pid: int) -> None:
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
