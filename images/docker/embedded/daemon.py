"""The embedded engine: a Docker engine of Cardstock's own for a bare Debian with root.

Everything lives in one state directory ($CARDSTOCK_HOME, default ~/.cache/cardstock): the unpacked packages, the data,
the socket. The host's package database, its docker group and an engine it may have are left alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from images.core import (
    CardstockError,
    EngineUnreachable,
    Layout,
    LockTimeout,
    PrintLine,
    debian,
    default_layout,
    hold,
    process,
    write_atomically,
)
from images.docker.embedded import bridge, mounts, processes
from images.docker.embedded import packages as home
from images.docker.embedded.daemon_config import render_config, without_live_restore
from images.docker.embedded.iptables import write_iptables
from images.docker.embedded.packages import cli_env
from images.docker.embedded.ping import engine_version, restores_live
from images.docker.embedded.space import LIMIT_BYTES, Pruned, data_bytes, free_disk_space, keep_under_limit, prune

__all__ = [
    "LIMIT_BYTES",
    "EngineStatus",
    "Layout",
    "Pruned",
    "cli_env",
    "default_layout",
    "engine_version",
    "free_disk_space",
    "keep_under_limit",
    "prune",
    "start",
    "status",
    "stop",
]

READY_SECONDS = 90.0
STOP_SECONDS = 60.0
_LOG_BYTES = 10_000_000
_RELOAD_SECONDS = 10.0


@dataclass(frozen=True)
class EngineStatus:
    """What is known of the embedded engine; sizes in bytes, ``version`` empty where it does not answer."""

    running: bool
    endpoint: str
    version: str
    pid: int | None
    data_bytes: int
    limit_bytes: int
    free_bytes: int
    home: Path
    log: Path


@contextmanager
def locked(layout: Layout, say: PrintLine, timeout: float = 900.0) -> Iterator[None]:
    """Hold the lock of this state directory. Raises EngineUnreachable when another holds it for too long."""
    layout.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            lock = hold(layout.home / "engine.lock", "a start or stop of the embedded engine", say, seconds=timeout)
            stack.enter_context(lock)
        except LockTimeout as error:
            raise EngineUnreachable(
                f"another start or stop of the embedded engine holds the lock since {timeout:.0f} s",
                cause=f"it is {error.holder}",
                do="wait for it, or end it and run again",
                where=str(error.path),
            ) from error
        yield


def _alive(pidfile: Path, mark: str) -> int | None:
    """The process of this pid file, if it lives and its command line names ``mark`` (ids are used again)."""
    with suppress(OSError, ValueError):
        pid = int(pidfile.read_text(encoding="ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
        return pid if mark in words and state != "Z" else None
    return None


def _daemon(layout: Layout) -> int | None:
    return _alive(layout.pidfile, str(layout.config))


def _containerd_pidfile(layout: Layout) -> Path:
    return layout.exec / "containerd" / "containerd.pid"


def _containerd(layout: Layout) -> int | None:
    return _alive(_containerd_pidfile(layout), str(layout.exec))


def log_tail(layout: Layout, lines: int = 15) -> str:
    """The end of dockerd's log."""
    if not layout.log.is_file():
        return "no log yet"
    return "\n".join(layout.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _wait_ready(layout: Layout, pid: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if engine_version(layout.socket) is not None:
            return
        if _gone(pid):
            raise EngineUnreachable(
                "the embedded engine ended while starting",
                cause=log_tail(layout),
                do="mend what the log names, then run again; or set DOCKER_HOST to another engine",
                where=str(layout.log),
            )
        time.sleep(0.2)
    _end(pid, 10)
    raise EngineUnreachable(
        f"the embedded engine does not answer after {seconds:.0f} s",
        cause=log_tail(layout),
        do="run again; the next start uses what is there",
        where=str(layout.log),
    )


def _gone(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a child of this process stays a zombie until it is waited for
    return not Path(f"/proc/{pid}").exists()


def start(layout: Layout | None = None, *, firewall: bool = True, say: PrintLine = lambda _: None) -> str:
    """Start the embedded engine if it does not run; its endpoint (a unix:// URL).

    ``firewall``: let the engine write packet-filter rules (without, containers reach no network).
    Raises EngineUnreachable where this host cannot carry it, RegistryFailure where packages cannot be fetched.
    """
    layout = layout or default_layout()
    if engine_version(layout.socket) is not None:
        return layout.endpoint
    mirror = home.can_carry(layout)
    with locked(layout, say):
        if engine_version(layout.socket) is not None:
            return layout.endpoint
        home.install(layout, mirror, say)
        pid = _daemon(layout)
        if pid is None:
            pid = _launch(layout, firewall, say)
        _wait_ready(layout, pid, READY_SECONDS)
    return layout.endpoint


def provide_cli(layout: Layout, say: PrintLine = lambda _: None) -> None:
    """Fetch the docker CLI and buildx for an engine that came without them; needs Debian, not root.

    Raises EngineUnreachable where this host is not Debian, RegistryFailure where packages cannot be fetched.
    """
    codename = debian.host_codename()
    mirror = home.require_host(layout, uid=0, codename=codename, mirror=debian.host_mirror())
    with locked(layout, say):
        home.install(layout, mirror, say)
        home.write_cli_config(layout, Path.home() / ".docker" / "config.json")


def _launch(layout: Layout, firewall: bool, say: PrintLine) -> int:
    # Left by a killed engine or from before a reboot: the ids may belong to others now.
    layout.pidfile.unlink(missing_ok=True)
    if _containerd(layout) is None:
        _containerd_pidfile(layout).unlink(missing_ok=True)
    if layout.log.is_file() and layout.log.stat().st_size > _LOG_BYTES:
        layout.log.replace(layout.log.with_suffix(".log.1"))
    home.write_cli_config(layout, Path.home() / ".docker" / "config.json")
    if firewall:
        write_iptables(layout)
    bridge.ensure_bridge(layout.bridge)
    write_atomically(layout.config, render_config(layout, mtu=bridge.host_mtu(), firewall=firewall))
    say(f"starting the embedded engine: {layout.endpoint}")
    dockerd = layout.prefix / "usr" / "sbin" / "dockerd"
    return process.start_daemon(
        [str(dockerd), "--config-file", str(layout.config)], layout.log, env={"PATH": layout.path}
    )


def _end(pid: int, seconds: float) -> None:
    """Ask a process to end, then make it."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if _gone(pid):
                return
            time.sleep(0.1)
    raise CardstockError(f"process {pid} does not end", do="look at it with ps; it may hang on a disk")


def _let_containers_end(layout: Layout, pid: int) -> None:
    """Have the engine end its containers when it ends; it reads this one setting again on SIGHUP.

    It does so as a part of its own end, which no restart policy takes for a person's wish: they come back with it.
    """
    with suppress(OSError, ValueError):
        write_atomically(layout.config, without_live_restore(layout.config.read_text(encoding="utf-8")))
        os.kill(pid, signal.SIGHUP)
        end = time.monotonic() + _RELOAD_SECONDS
        while restores_live(layout.socket) and time.monotonic() < end:
            time.sleep(0.1)


def stop(layout: Layout | None = None, *, say: PrintLine = lambda _: None) -> bool:
    """Stop the embedded engine and what it left running; whether there was anything to stop. Data stays."""
    layout = layout or default_layout()
    if not layout.root.is_dir():
        return False
    with locked(layout, say):
        daemon = _daemon(layout)
        if daemon is not None:
            _let_containers_end(layout, daemon)
        pids = [pid for pid in (daemon, _containerd(layout)) if pid is not None]
        for pid in pids:
            _end(pid, STOP_SECONDS)
        left = processes.left_running(layout)  # by an engine that was killed before
        for pid in left:
            _end(pid, 0)
        layout.pidfile.unlink(missing_ok=True)
        layout.socket.unlink(missing_ok=True)
        mounts.unmount_below(layout.root)  # a killed engine leaves its data directory mounted on itself
        bridge.remove_bridge(layout.bridge)
    return bool(pids or left)


def status(layout: Layout | None = None) -> EngineStatus:
    """What the embedded engine is doing, and its size."""
    layout = layout or default_layout()
    version = engine_version(layout.socket)
    existing = next(path for path in (layout.root, *layout.root.parents) if path.is_dir())
    return EngineStatus(
        running=version is not None,
        endpoint=layout.endpoint,
        version=version or "",
        pid=_daemon(layout),
        data_bytes=data_bytes(layout),
        limit_bytes=LIMIT_BYTES,
        free_bytes=shutil.disk_usage(existing).free,
        home=layout.home,
        log=layout.log,
    )
