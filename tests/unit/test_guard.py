"""The guard bites, through every way out, and lets stand-ins and loopback through."""

from __future__ import annotations

import socket
import stat
import threading
import urllib.request
from pathlib import Path

import pytest

from images.core import process
from tests.conftest import FREE, guard, pytest_runtest_protocol
from tests.guard import refused_address, refused_program

REFUSAL = pytest.fail.Exception


def bite(call: object, *args: object, **kwargs: object) -> str:
    """Call, expect a refusal, take it off the record, and give its text."""
    assert callable(call)
    with pytest.raises(REFUSAL) as caught:
        call(*args, **kwargs)
    guard.refusals.clear()
    return str(caught.value)


@pytest.fixture
def real_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named docker that is no stand-in, because the temporary folder is elsewhere."""
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\ntouch "$(dirname "$0")/ran"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("tests.guard.tempfile.gettempdir", lambda: "/nowhere")
    return program


@pytest.mark.parametrize("start", [process.run, lambda argv: process.stream(argv, print)])
def test_docker_is_not_started(start: object, real_docker: Path) -> None:
    assert "tried to start 'docker'" in bite(start, ["docker", "ps"])
    assert "mark it @pytest.mark.engine" in bite(start, ["sh", "-c", "exec docker ps"])
    assert not (real_docker.parent / "ran").exists()


def test_a_daemon_is_not_started(real_docker: Path) -> None:
    bite(process.start_daemon, [str(real_docker)], real_docker.parent / "log")
    assert not (real_docker.parent / "ran").exists()


def test_a_refusal_is_not_swallowed_by_a_broad_except(real_docker: Path) -> None:
    def careless() -> None:
        try:
            process.run(["docker", "ps"])
        except Exception:
            return

    bite(careless)


def test_a_refusal_in_a_thread_is_remembered() -> None:
    def dial() -> None:
        try:
            socket.create_connection(("192.0.2.1", 80), timeout=1)
        except BaseException:
            return

    thread = threading.Thread(target=dial)
    thread.start()
    thread.join()
    assert ["192.0.2.1" in text for text in guard.refusals] == [True]
    guard.refusals.clear()


def test_the_network_is_closed() -> None:
    assert "mark it @pytest.mark.network" in bite(socket.create_connection, ("192.0.2.1", 80))
    assert "'example.invalid'" in bite(urllib.request.urlopen, "http://example.invalid/")
    with socket.socket(socket.AF_UNIX) as engine:
        assert "docker.sock" in bite(engine.connect, "/var/run/docker.sock")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        bite(udp.sendto, b"x", ("192.0.2.1", 53))


def test_loopback_and_own_sockets_are_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        assert client.getpeername() == str(tmp_path / "s")
    assert guard.refusals == []


def test_stand_ins_run(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho stand-in\n")
    program.chmod(0o755)
    assert process.run(["docker"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}).out == "stand-in\n"


@pytest.mark.parametrize("marker", FREE)
def test_a_marked_test_is_free(marker: str, request: pytest.FixtureRequest) -> None:
    request.node.add_marker(marker)
    life = pytest_runtest_protocol(request.node)
    next(life)
    assert not guard.active
    life.close()
    assert guard.active


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/bin/sh", "-c", "cd / && /bin/sh x"], None),
        (["git", "commit", "-m", "docker"], None),
        (["docker-stand-in-that-is-not-there"], None),
    ],
)
def test_programs_told_apart(argv: list[str], expected: str | None) -> None:
    assert refused_program(argv) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("127.0.0.53", 53), None),
        (("::1", 1, 0, 0), None),
        (("localhost", 1), None),
        (("10.0.0.1", 1), "10.0.0.1"),
        (("0.0.0.0", 1), "0.0.0.0"),
        (b"/run/containerd.sock", "/run/containerd.sock"),
    ],
)
def test_addresses_told_apart(address: object, expected: str | None) -> None:
    assert refused_address(address) == expected
