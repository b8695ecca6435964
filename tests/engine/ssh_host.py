"""A host behind ssh, on loopback: sshd with keys of its own, and an `ssh` that finds it under the name "far"."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bench.loopback_registry import free_port
from images.core import process

NAME = "far"


def sshd() -> str:
    """The program; skips where there is none."""
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("no sshd on this machine (openssh-server): not run here")
    return found


class SshHost:
    """sshd on a free port, in ``folder``; programs on the other side have ``environment``."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._sshd, self.folder, self.port, self._pid = sshd(), folder, free_port(), 0
        folder.mkdir(parents=True)
        for key in ("host", "mine", "other"):
            process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)])
        shutil.copy(folder / "mine.pub", folder / "authorized")
        self.know("host")
        self.settings(environment)
        program = folder / "bin" / "ssh"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        program.chmod(0o755)
        self.use("mine")

    @property
    def path(self) -> str:
        """A PATH whose `ssh` knows the host."""
        return f"{self.folder}/bin:{os.environ['PATH']}"

    def know(self, key: str) -> None:
        """Take this key for the host's."""
        words = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {words}")

    def use(self, key: str, port: int = 0) -> None:
        """Let ssh show this key to it."""
        (self.folder / "ssh_config").write_text(
            f"Host {NAME}\n  HostName 127.0.0.1\n  Port {port or self.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self.folder}/{key}\n  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n"
            f"  UserKnownHostsFile {self.folder}/known\n  GlobalKnownHostsFile /dev/null\n"
        )

    def settings(self, environment: dict[str, str]) -> None:
        """The environment on the other side; takes hold at the next start."""
        own = " ".join(f"{name}={value}" for name, value in environment.items())
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nSetEnv {own}\nMaxStartups 100\n"
        )

    def start(self) -> None:
        """Start it and wait until it listens."""
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd shuts itself in before somebody is let in
        words = [self._sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self._pid = process.start_daemon(words, self.folder / "log")
        end = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; who is in stays in."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
        self._pid = 0
