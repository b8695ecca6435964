"""The embedded engine: a Docker engine of Cardstock's own for a bare Debian with root.

Everything lives in one state directory ($CARDSTOCK_HOME, default ~/.cache/cardstock): the unpacked packages, the data,
the socket. The host's package database, its docker group and an engine it may have are left alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from images import debian, netbridge, process
from images.errors import CardstockError, EngineUnreachable

GB = 1000**3
LIMIT_BYTES = 45 * GB
# Build cache that the engine keeps by itself; the rest of the limit is for images.
CACHE_BYTES = 20 * GB
READY_SECONDS = 90.0
STOP_SECONDS = 60.0
_LOG_BYTES = 10_000_000
# Sockets of the engine lie below the state directory, and a socket's path has at most 107 bytes.
_HOME_MAX = 60
# Debian releases whose own docker.io is too old (no BuildKit bake): take these packages from the next one.
_ENGINE_SUITE = {"bookworm": "trixie"}
_ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd")
# From the host's own release: the next one's runc wants a newer libc, and iptables must fit the libraries below.
_HOST_PACKAGES = (
    "runc", "tini", "iptables", "libip4tc2", "libip6tc2", "libxtables12",
    "libmnl0", "libnetfilter-conntrack3", "libnfnetlink0", "libnftnl11",
)  # fmt: skip
_HELP = (
    "start your Docker engine, or set DOCKER_HOST to one; if it runs, add yourself to the docker group; "
    "or run as root (sudo) on Debian 12 or later, where Cardstock brings an engine of its own"
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Layout:
    """The paths of one embedded engine."""

    home: Path

    @property
    def root(self) -> Path:
        return self.home / "engine"

    @property
    def prefix(self) -> Path:
        return self.root / "prefix"

    @property
    def stamp(self) -> Path:
        return self.prefix / "packages.json"

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def exec(self) -> Path:
        return self.root / "exec"

    @property
    def pidfile(self) -> Path:
        return self.root / "docker.pid"

    @property
    def log(self) -> Path:
        return self.root / "dockerd.log"

    @property
    def config(self) -> Path:
        return self.root / "daemon.json"

    @property
    def cli_config(self) -> Path:
        return self.root / "cli"

    @property
    def bridge(self) -> str:
        return "cardstock" + hashlib.sha256(str(self.home).encode()).hexdigest()[:6]

    @property
    def path(self) -> str:
        own = (self.root / "bin", *(self.prefix / "usr" / name for name in ("bin", "sbin")))
        system = ("/usr/local/sbin", "/usr/sbin", "/sbin")
        return ":".join([*map(str, own), os.environ.get("PATH", os.defpath), *system])


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


def default_layout(environment: Mapping[str, str] | None = None) -> Layout:
    """The engine of $CARDSTOCK_HOME, default ~/.cache/cardstock."""
    wanted = (os.environ if environment is None else environment).get("CARDSTOCK_HOME")
    return Layout(Path(wanted).expanduser().absolute() if wanted else Path.home() / ".cache" / "cardstock")


class _UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def engine_version(path: Path, timeout: float = 5.0) -> str | None:
    """The version of the engine that answers on this socket; None where none does."""
    connection = _UnixHTTP(path, timeout)
    try:
        connection.request("GET", "/version")
        answer = connection.getresponse()
        return str(json.loads(answer.read())["Version"]) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()


@contextmanager
def locked(layout: Layout, say: Say, timeout: float = 900.0) -> Iterator[None]:
    """Hold the lock of this state directory. Raises EngineUnreachable when another holds it for too long."""
    layout.root.mkdir(parents=True, exist_ok=True)
    path = layout.home / "engine.lock"
    with path.open("w") as handle:
        end, told = time.monotonic() + timeout, False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise EngineUnreachable(
                        f"another start or stop of the embedded engine holds the lock since {timeout:.0f} s",
                        do="wait for it, or end it and run again",
                        where=str(path),
                    ) from error
                if not told:
                    say("waiting for another start or stop of the embedded engine")
                told = True
                time.sleep(0.2)
        yield


def require_host(layout: Layout, *, uid: int, codename: str | None, mirror: debian.Mirror | None) -> debian.Mirror:
    """Say whether this host can carry the engine. Raises EngineUnreachable with what to do instead."""
    cause = ""
    if uid != 0:
        cause = f"no engine answers, and an engine of Cardstock's own needs root (this is user id {uid})"
    elif codename is None:
        cause = "no engine answers, and an engine of Cardstock's own is made of Debian packages (this is not Debian)"
    elif codename == "bullseye":
        cause = "no engine answers, and an engine of Cardstock's own needs Debian 12 or later"
    elif len(str(layout.home)) > _HOME_MAX:
        cause = f"the state directory's path is longer than {_HOME_MAX} characters, too long for the engine's sockets"
        raise EngineUnreachable(
            "no Docker engine can be reached", cause=cause, do="set CARDSTOCK_HOME to a shorter path",
            where=str(layout.home),
        )  # fmt: skip
    elif mirror is None:
        cause = "no engine answers, and apt on this host names no Debian archive to take an engine from"
    if cause or mirror is None:
        raise EngineUnreachable("no Docker engine can be reached", cause=cause, do=_HELP)
    return mirror


def _sources(mirror: debian.Mirror) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    suite = _ENGINE_SUITE.get(mirror.codename, mirror.codename)
    return (
        ("engine", mirror.lines(suite), _ENGINE_PACKAGES),
        ("host", mirror.lines(mirror.codename), _HOST_PACKAGES),
    )


def _recipe() -> str:
    return " ".join([*_ENGINE_PACKAGES, *_HOST_PACKAGES])


def installed(layout: Layout) -> bool:
    """Whether the packages of this version of Cardstock are unpacked, to the last."""
    try:
        stamp = json.loads(layout.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(stamp.get("recipe") == _recipe())


def install(layout: Layout, mirror: debian.Mirror, say: Say) -> None:
    """Download the packages and unpack them into the prefix; one that broke off half-way is done anew."""
    if installed(layout):
        return
    say(f"fetching a Docker engine from Debian packages into {layout.prefix}")
    work = layout.root / "prefix.new"
    shutil.rmtree(work, ignore_errors=True)
    versions: dict[str, str] = {}
    for name, sources, packages in _sources(mirror):
        apt = debian.PrivateApt(layout.root / "apt" / name, sources)
        apt.update()
        debs = apt.download(packages, work / f"debs-{name}")
        debian.unpack(debs, work)
        versions |= debian.package_versions(debs)
        shutil.rmtree(work / f"debs-{name}")
    stamp = {"recipe": _recipe(), "packages": dict(sorted(versions.items()))}
    (work / layout.stamp.name).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(layout.prefix, ignore_errors=True)
    work.rename(layout.prefix)
    shutil.rmtree(layout.root / "apt", ignore_errors=True)


def write_cli_config(layout: Layout, user_config: Path) -> None:
    """A CLI configuration folder with buildx as a plug-in; logins stay where the user has them (a link)."""
    plugins = layout.cli_config / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    _link(plugins / "docker-buildx", layout.prefix / "usr/libexec/docker/cli-plugins/docker-buildx")
    if user_config.is_file():
        _link(layout.cli_config / "config.json", user_config)


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def cli_env(layout: Layout) -> dict[str, str]:
    """What to add to the environment so that ``docker`` and ``docker buildx`` are found and meet this engine."""
    return {"DOCKER_HOST": layout.endpoint, "DOCKER_CONFIG": str(layout.cli_config), "PATH": layout.path}


def render_config(layout: Layout, *, mtu: int, firewall: bool) -> str:
    """daemon.json: all paths private, overlay2 without the containerd store (exports would compress)."""
    settings = {
        "bridge": layout.bridge,
        "builder": {"gc": {"enabled": True, "defaultKeepStorage": f"{CACHE_BYTES // GB}GB"}},
        "data-root": str(layout.data),
        "exec-root": str(layout.exec),
        "features": {"containerd-snapshotter": False},
        "hosts": [layout.endpoint],
        "ip6tables": False,
        "iptables": firewall,
        "log-driver": "json-file",
        "log-opts": {"max-file": "2", "max-size": "10m"},
        "mtu": mtu,
        "pidfile": str(layout.pidfile),
        "storage-driver": "overlay2",
    }
    return json.dumps(settings, indent=1, sort_keys=True) + "\n"


def iptables_script(prefix: Path, flavour: str, tool: str) -> str:
    """A script that runs the prefix's iptables with the prefix's libraries (no other program needs them)."""
    lib = f"{prefix}/usr/lib/{os.uname().machine}-linux-gnu"
    return (
        "#!/bin/sh\n"
        f"LD_LIBRARY_PATH='{lib}' XTABLES_LIBDIR='{lib}/xtables' \\\n"
        f"exec '{prefix}/usr/sbin/xtables-{flavour}-multi' {tool} \"$@\"\n"
    )


def _write_iptables(layout: Layout) -> None:
    """Bring iptables where the host has none: the flavour that this kernel answers to."""
    folder = layout.root / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    if shutil.which("iptables", path=layout.path):
        return
    folder.mkdir()
    tails = []
    for flavour in ("nft", "legacy"):
        for tool in ("iptables", "ip6tables"):
            script = folder / tool
            script.write_text(iptables_script(layout.prefix, flavour, tool), encoding="utf-8")
            script.chmod(0o755)
        probe = process.run([str(folder / "iptables"), "-w", "-t", "nat", "-S"], check=False, timeout=30)
        if probe.code == 0:
            return
        tails.append(f"{flavour}: {probe.err.strip()}")
    raise EngineUnreachable(
        "the kernel has no usable packet filter, so containers could not reach the network",
        cause="; ".join(tails),
        do="load nf_tables or ip_tables with NAT (modprobe nf_tables), or set DOCKER_HOST to another engine",
    )


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
        if not Path(f"/proc/{pid}").exists() or _is_zombie(pid):
            raise EngineUnreachable(
                "the embedded engine ended while starting", cause=log_tail(layout),
                do="mend what the log names, then run again; or set DOCKER_HOST to another engine",
                where=str(layout.log),
            )  # fmt: skip
        time.sleep(0.2)
    _end(pid, 10)
    raise EngineUnreachable(
        f"the embedded engine does not answer after {seconds:.0f} s", cause=log_tail(layout),
        do="run again; the next start uses what is there", where=str(layout.log),
    )  # fmt: skip


def _is_zombie(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not Path(f"/proc/{pid}").exists()


def start(layout: Layout | None = None, *, firewall: bool = True, say: Say = lambda _: None) -> str:
    """Start the embedded engine if it does not run; its endpoint (a unix:// URL).

    ``firewall``: let the engine write packet-filter rules (without, containers reach no network).
    Raises EngineUnreachable where this host cannot carry it, RegistryFailure where packages cannot be fetched.
    """
    layout = layout or default_layout()
    if engine_version(layout.socket) is not None:
        return layout.endpoint
    codename = debian.host_codename()
    mirror = require_host(layout, uid=os.geteuid(), codename=codename, mirror=debian.host_mirror())
    with locked(layout, say):
        if engine_version(layout.socket) is not None:
            return layout.endpoint
        install(layout, mirror, say)
        pid = _daemon(layout)
        if pid is None:
            pid = _launch(layout, firewall, say)
        _wait_ready(layout, pid, READY_SECONDS)
    return layout.endpoint


def _launch(layout: Layout, firewall: bool, say: Say) -> int:
    # Left by a killed engine or from before a reboot: the ids may belong to others now.
    layout.pidfile.unlink(missing_ok=True)
    if _containerd(layout) is None:
        _containerd_pidfile(layout).unlink(missing_ok=True)
    if layout.log.is_file() and layout.log.stat().st_size > _LOG_BYTES:
        layout.log.replace(layout.log.with_suffix(".log.1"))
    write_cli_config(layout, Path.home() / ".docker" / "config.json")
    if firewall:
        _write_iptables(layout)
    netbridge.ensure_bridge(layout.bridge)
    temporary = layout.config.with_suffix(".new")
    temporary.write_text(render_config(layout, mtu=netbridge.host_mtu(), firewall=firewall), encoding="utf-8")
    temporary.replace(layout.config)
    say(f"starting the embedded engine: {layout.endpoint}")
    dockerd = layout.prefix / "usr" / "sbin" / "dockerd"
    return process.start_daemon([str(dockerd), "--config-file", str(layout.config)], layout.log,
                                env={"PATH": layout.path})  # fmt: skip


def _end(pid: int, seconds: float) -> None:
    """Ask a process to end, then make it."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if _is_zombie(pid):
                return
            time.sleep(0.1)
    raise CardstockError(f"process {pid} does not end", do="look at it with ps; it may hang on a disk")


def stop(layout: Layout | None = None, *, say: Say = lambda _: None) -> bool:
    """Stop the embedded engine and what it left running; whether there was anything to stop. Data stays."""
    layout = layout or default_layout()
    if not layout.root.is_dir():
        return False
    with locked(layout, say):
        pids = [pid for pid in (_daemon(layout), _containerd(layout)) if pid is not None]
        for pid in pids:
            _end(pid, STOP_SECONDS)
        layout.pidfile.unlink(missing_ok=True)
        layout.socket.unlink(missing_ok=True)
        netbridge.remove_bridge(layout.bridge)
    return bool(pids)


def data_bytes(layout: Layout) -> int:
    """Bytes on disk below the data directory; what running containers mount is not counted twice."""
    if not layout.data.is_dir():
        return 0
    counted = process.run(["du", "-sx", "--block-size=1", str(layout.data)], check=False, timeout=600)
    return int(counted.out.split()[0]) if counted.out.strip() else 0


def status(layout: Layout | None = None) -> EngineStatus:
    """What the embedded engine is doing, and its size."""
    layout = layout or default_layout()
    version = engine_version(layout.socket)
    existing = next(path for path in (layout.root, *layout.root.parents) if path.is_dir())
    return EngineStatus(
        running=version is not None, endpoint=layout.endpoint, version=version or "", pid=_daemon(layout),
        data_bytes=data_bytes(layout), limit_bytes=LIMIT_BYTES, free_bytes=shutil.disk_usage(existing).free,
        home=layout.home, log=layout.log,
    )  # fmt: skip
