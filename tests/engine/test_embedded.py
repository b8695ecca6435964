"""The embedded engine for real: in a state directory of its own, beside whatever engine runs here.

The tests are one story, in order: fresh start, stop, restart, kill, trim. Without packet-filter rules, which the two
engines of one machine would share.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from images.core import process
from images.core.errors import EngineUnreachable
from images.core.home import Layout
from images.docker.connection import connect
from images.docker.embedded import bridge
from images.docker.embedded import daemon as embedded
from images.docker.embedded import packages as home
from images.docker.engine import Engine
from tests.engine.conftest import host_tar, needs_root_on_debian

IMAGE = "cardstock/test-host:kept"
DPKG_STATUS = Path("/var/lib/dpkg/status")
HOST_APT_LISTS = Path("/var/lib/apt/lists")


@pytest.fixture(autouse=True)
def no_engine_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)


def start(layout: Layout) -> str:
    return embedded.start(layout, firewall=False, say=print)


def reach(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("DOCKER_HOST", layout.endpoint)
    return connect(layout)


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())


def test_a_fresh_start_twice_at_once_makes_one_engine_and_leaves_the_host_alone(second: Layout) -> None:
    before = (DPKG_STATUS.read_bytes(), listing(HOST_APT_LISTS), Path("/var/run/docker.sock").exists())
    endpoints: list[str] = []
    threads = [threading.Thread(target=lambda: endpoints.append(start(second))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert endpoints == [second.endpoint] * 2
    assert before == (DPKG_STATUS.read_bytes(), listing(HOST_APT_LISTS), Path("/var/run/docker.sock").exists())
    status = embedded.status(second)
    assert status.running
    assert int(status.version.split(".")[0]) >= 26
    assert status.data_bytes < status.limit_bytes
    assert home.installed(second)
    mine = [word for word in Path("/proc").glob("[0-9]*/cmdline") if str(second.config).encode() in read_quietly(word)]
    assert len(mine) == 1


def read_quietly(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_its_bridge_overlaps_no_other_route(second: Layout) -> None:
    routes = bridge.parse_routes(bridge.ROUTES.read_text())
    own = [network for device, network in routes if device == second.bridge]
    assert len(own) == 1
    others = [network for device, network in routes if device != second.bridge and network.prefixlen]
    assert not any(own[0].overlaps(network) for network in others)


def test_buildx_of_the_engine_is_found(second: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    found = reach(second, monkeypatch)
    assert found.embedded
    assert found.buildx_version() >= (0, 13)
    assert process.run(["docker", "info", "--format", "{{.DockerRootDir}}"], env=found.cli_env()).out.strip() == str(
        second.data
    )


def test_a_restart_keeps_images(second: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = reach(second, monkeypatch).import_tar(io.BytesIO(host_tar()), IMAGE)
    assert embedded.stop(second) is True
    assert not embedded.status(second).running
    assert bridge.bridge_address(second.bridge) is None
    assert str(second.root).encode() not in b"".join(map(read_quietly, Path("/proc").glob("[0-9]*/cmdline")))
    assert embedded.stop(second) is False
    start(second)
    found = reach(second, monkeypatch).inspect(IMAGE)
    assert found is not None
    assert found.id == kept.id


def test_a_killed_engine_is_noticed_and_started_again(second: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = embedded.status(second).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not embedded.status(second).running)
    assert embedded.status(second).pid is None
    with pytest.raises(EngineUnreachable, match="invoke engine --start"):
        monkeypatch.setenv("DOCKER_HOST", second.endpoint)
        connect(second, start=False)
    start(second)
    assert embedded.status(second).pid not in (None, pid)
    found = reach(second, monkeypatch)
    assert found.inspect(IMAGE) is not None
    assert found.run(IMAGE, ["sh", "-c", "echo alive"]).out == "alive\n"


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def test_trimming_takes_cache_and_leaves_tags_until_everything_goes(
    second: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = reach(second, monkeypatch)
    (tmp_path / "Dockerfile").write_text(f'FROM {IMAGE}\nRUN ["sh", "-c", "cat /bin/* >/tmp/big"]\n')
    process.run(["docker", "buildx", "build", "--quiet", "-t", "cardstock/test-host:built", str(tmp_path)],
                env=found.cli_env(), timeout=120)  # fmt: skip
    assert cached(found)
    result = embedded.prune(second, limit=0)
    assert not cached(found)
    assert not result.fits
    assert found.inspect("cardstock/test-host:built") is not None
    assert embedded.keep_under_limit(second) is None
    embedded.prune(second, everything=True)
    assert found.inspect("cardstock/test-host:built") is None
    assert found.inspect(IMAGE) is None


def cached(found: Engine) -> list[str]:
    """Build cache records that hold bytes."""
    said = process.run(["docker", "buildx", "du"], env=found.cli_env()).out
    return [line for line in said.splitlines()[1:] if line[:1].isalnum() and "0B" not in line.split()[:3]
            and not line.startswith(("Total", "Reclaimable", "Shared", "Private"))]  # fmt: skip


def test_an_engine_that_dies_while_starting_shows_the_end_of_its_log(second: Layout) -> None:
    broken = Layout(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    try:
        broken.root.mkdir()
        broken.prefix.symlink_to(second.prefix)
        broken.data.write_text("a file where a folder should be")
        with pytest.raises(EngineUnreachable, match="ended while starting") as caught:
            start(broken)
        assert str(broken.data) in caught.value.cause
        assert caught.value.where == str(broken.log)
        assert caught.value.exit_code == 5
    finally:
        embedded.stop(broken)
        shutil.rmtree(broken.home)


def test_without_root_it_says_what_to_do() -> None:
    needs_root_on_debian()
    nobody = 65534
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        text = "no error"
        try:
            os.setgroups([])
            os.setgid(nobody)
            os.setuid(nobody)
            connect(Layout(Path("/tmp/cs-nobody")))
        except EngineUnreachable as error:
            text = f"{error.exit_code} {error}"
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    assert said.startswith("5 ")
    assert "docker group" in said
    assert "sudo" in said
    assert not Path("/tmp/cs-nobody").exists()
