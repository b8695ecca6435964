"""The compiler cache: ccache in front of sccache.

sccache takes an nvcc call apart and keeps what each arch costs (cicc, ptxas), so that one more arch costs that arch
only; but to find out that nothing changed it runs nvcc's preprocessor, 8 s an object. ccache in front of it keeps whole
objects and compares the files that went into one, 0.1 s an object (both measured on xformers' sparse24_pack.cu).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.kernels.inside.failure import say

# Of each of the two: some hundred kernel wheels.
SIZE = "4G"
# Settings of a remote storage that a site may hand in: sccache's own, and the credentials of its storages.
REMOTE = ("SCCACHE_", "AWS_", "ACTIONS_", "ALIBABA_CLOUD_", "TENCENTCLOUD_")


@dataclass
class Usage:
    """What compilers took: how often one really ran (None: not known), the largest in bytes, processor seconds."""

    compiled: int | None = None
    peak: int = 0
    cpu: float = 0.0


@dataclass(frozen=True)
class Caches:
    """Programs and folder of the cache."""

    ccache: str
    sccache: str
    folder: Path
    remote: Mapping[str, str]

    def environment(self, socket: str, *inputs: str) -> dict[str, str]:
        """What compilers need to be cached. ``inputs`` are files beside the compiler that decide what it makes."""
        return {
            **self.remote,
            "CARDSTOCK_CCACHE": self.ccache,
            "CCACHE_DIR": str(self.folder / "ccache"),
            "CCACHE_MAXSIZE": SIZE,
            "CCACHE_PREFIX": self.sccache,
            "CCACHE_DEPEND": "1",
            # A layer that is made again has new times and the same contents.
            "CCACHE_COMPILERCHECK": "content",
            "CCACHE_EXTRAFILES": ":".join(inputs),
            "SCCACHE_DIR": str(self.folder / "sccache"),
            "SCCACHE_CACHE_SIZE": SIZE,
            "SCCACHE_SERVER_UDS": socket,
            "SCCACHE_IDLE_TIMEOUT": "0",
            # A cache that breaks down costs time, not the build.
            "SCCACHE_IGNORE_SERVER_IO_ERROR": "1",
        }


def find(folder: Path, programs: str, secret: Path) -> Caches | None:
    """The cache if both programs are there (sccache on the path ``programs`` first); None where one is not."""
    path = f"{programs}:{os.environ.get('PATH', '')}"
    ccache, sccache = shutil.which("ccache", path=path), shutil.which("sccache", path=path)
    if ccache is None or sccache is None:
        return None
    return Caches(ccache, sccache, folder, remote_settings(secret))


def remote_settings(secret: Path) -> dict[str, str]:
    """NAME=VALUE lines of a build secret, those that are sccache's; a layer never sees them."""
    if not secret.is_file():
        return {}
    rows = (line.partition("=") for line in secret.read_text(encoding="utf-8").splitlines())
    return {name.strip(): value.strip() for name, _, value in rows if name.strip().startswith(REMOTE)}


@contextmanager
def serving(caches: Caches, inputs: tuple[str, ...], usage: Usage) -> Iterator[dict[str, str]]:
    """sccache's server, as a child: so that what its compilers take can be counted when it ends.

    Gives the environment for compilers; fills ``usage`` at the end.
    """
    with tempfile.TemporaryDirectory(prefix="sccache-") as folder:
        env = os.environ | caches.environment(f"{folder}/socket", *inputs)
        log = caches.folder / "sccache.log"
        caches.folder.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            started = {"SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1", "SCCACHE_LOG": "warn"}
            server = subprocess.Popen([caches.sccache], env=env | started, stdout=out, stderr=out)
        _wait_for(Path(f"{folder}/socket"), server)
        try:
            yield caches.environment(f"{folder}/socket", *inputs)
        finally:
            _end(caches, server, env, usage)


def _wait_for(socket: Path, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if socket.exists() or server.poll() is not None:
            return
        time.sleep(0.05)


def _end(caches: Caches, server: subprocess.Popen[bytes], env: Mapping[str, str], usage: Usage) -> None:
    def ask(option: str) -> str:
        done = subprocess.run(
            [caches.sccache, *option.split()], env=dict(env), capture_output=True, text=True, check=False
        )
        return done.stdout

    if server.poll() is not None:
        say(f"the compiler cache ended early (code {server.returncode}); nothing is lost but time")
        return
    usage.compiled = compiled(ask("--show-stats --stats-format=json"))
    ask("--stop-server")
    _, status, taken = os.wait4(server.pid, 0)
    server.returncode = os.waitstatus_to_exitcode(status)
    usage.peak = taken.ru_maxrss * 1024 if usage.compiled != 0 else 0
    usage.cpu = taken.ru_utime + taken.ru_stime


def compiled(stats: str) -> int | None:
    """Compiler steps that sccache had to run (misses, of whatever kind); None where its statistics cannot be read."""
    try:
        counted = json.loads(stats)["stats"]
        return int(sum(counted["cache_misses"]["counts"].values()) + counted["forced_recaches"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
