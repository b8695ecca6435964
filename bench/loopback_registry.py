"""A real registry on loopback, Debian's docker-registry, for measurements that pull; its data go with it."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import yaml

from images.core import CardstockError, UsageError, debian, default_layout, process

PACKAGE = "docker-registry"
_SECONDS = 30.0


def registry_program() -> Path:
    """The registry's program, unpacked once into the state folder. Raises UsageError where no archive is known."""
    place = default_layout().home / "test" / PACKAGE
    found = place / "usr/bin/docker-registry"
    if found.is_file():
        return found
    mirror = debian.host_mirror()
    if mirror is None:
        raise UsageError(
            "there is no registry to measure with",
            cause="this host's apt names no Debian archive to take docker-registry from",
            do="run it on Debian or Ubuntu",
        )
    work = place.with_name(f"{PACKAGE}.{os.getpid()}")
    try:
        apt = debian.PrivateApt(work / "apt", mirror.lines(mirror.codename))
        apt.update()
        debian.unpack(apt.download([PACKAGE], work / "debs"), work / "out")
        with suppress(OSError):  # another run may have been faster
            (work / "out").rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def settings(folder: Path, port: int) -> str:
    """The registry's configuration: its data below ``folder``, reachable from this machine alone."""
    told = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "on loopback only"},
    }
    return str(yaml.safe_dump(told))


def answers(port: int) -> bool:
    """Whether a registry answers there."""
    with (
        suppress(OSError, http.client.HTTPException),
        closing(HTTPConnection("127.0.0.1", port, timeout=2)) as connection,
    ):
        connection.request("GET", "/v2/")
        return connection.getresponse().status in (200, 401)
    return False


@contextmanager
def loopback_registry(folder: Path) -> Iterator[int]:
    """The port of an empty registry, for as long as the block runs; ``folder`` is to be dropped by the caller.

    Raises CardstockError where it does not answer, with the end of its log.
    """
    program, port = registry_program(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / "config.yml", folder / "log"
    config.write_text(settings(folder, port), encoding="utf-8")
    pid = process.start_daemon([str(program), "serve", str(config)], log)
    try:
        end = time.monotonic() + _SECONDS
        while not answers(port):
            if time.monotonic() > end:
                told = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
                raise CardstockError("the registry to measure with does not answer", cause="\n".join(told))
            time.sleep(0.05)
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
