"""Starting the page: its environment, the port, what it may know of the machine. uv is a stand-in, the lock is real."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from images.commands.demo import LOCK, free_port, surroundings
from images.core.errors import RegistryFailure, Unsafe, UsageError
from images.run.demo import environment
from tests.helpers.matrices import ROOT

UV = """#!/bin/sh
echo "$UV_DEFAULT_INDEX $*" >>"{log}"
if [ "$1" = venv ]; then
    for folder; do :; done
    mkdir -p "$folder/bin" && touch "$folder/bin/python"
else
    {install}
fi
"""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)


def uv(folder: Path, install: str = ":") -> str:
    program = folder / "uv"
    program.write_text(UV.format(log=folder / "log", install=install))
    program.chmod(0o755)
    return str(program)


def calls(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_an_environment_is_made_once_by_hash(tmp_path: Path) -> None:
    said: list[str] = []
    made = environment.make_environment(ROOT / LOCK, tmp_path / "home", said.append, uv(tmp_path))
    assert made.is_file()
    assert environment.make_environment(ROOT / LOCK, tmp_path / "home", said.append, uv(tmp_path)) == made
    assert [call.split()[0] for call in calls(tmp_path)] == ["venv", "pip"]
    assert "--require-hashes" in calls(tmp_path)[1]
    assert len(said) == 1


def test_another_lock_is_another_environment(tmp_path: Path) -> None:
    (tmp_path / "demo.lock").write_text("gradio==1")
    first = environment.make_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path))
    assert environment.make_environment(tmp_path / "demo.lock", tmp_path / "home", uv=uv(tmp_path)) != first


def test_one_that_broke_off_is_made_anew(tmp_path: Path) -> None:
    broken = uv(tmp_path, "echo 'error: connection reset' >&2; exit 2")
    with pytest.raises(RegistryFailure, match=r"packages of demo\.lock could not be installed") as caught:
        environment.make_environment(ROOT / LOCK, tmp_path / "home", uv=broken)
    assert caught.value.cause == "error: connection reset"
    assert [*(tmp_path / "home/environments").iterdir()] == []
    assert environment.make_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path)).is_file()


def test_a_package_that_is_not_the_locked_one_is_unsafe(tmp_path: Path) -> None:
    with pytest.raises(Unsafe, match=r"not what demo\.lock says"):
        environment.make_environment(
            ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path, "echo 'Hash mismatch for `gradio`' >&2; exit 1")
        )


def test_pips_settings_hold_for_uv_unless_it_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    environment.make_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path))
    assert all(call.startswith("https://index.example/simple ") for call in calls(tmp_path))
    assert environment.uv_settings({"PIP_CERT": "/ca", "SSL_CERT_FILE": "/own"}) == {}
    assert environment.uv_settings({"PIP_CERT": "/ca"}) == {"SSL_CERT_FILE": "/ca"}


def test_a_port_in_use_is_reported_with_another(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1, port {port}") as caught:
            free_port("127.0.0.1", port)
        assert caught.value.do.startswith("take another: --port ")
    free_port("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(UsageError, match="cannot listen") as caught:
        free_port("127.0.0.1", port)
    assert caught.value.do == "take one of 1 to 65535: --port 7860"


def test_the_page_keeps_the_sites_exceptions_to_its_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "qwen.example.com")
    assert surroundings(ROOT, tmp_path)["NO_PROXY"] == "qwen.example.com,127.0.0.1,localhost,::1"


def test_all_that_the_page_writes_lies_in_its_folder(tmp_path: Path) -> None:
    env = surroundings(ROOT, tmp_path)
    assert {env["GRADIO_TEMP_DIR"], env["TMPDIR"]} == {str(tmp_path / "uploads"), str(tmp_path / "tmp")}
    assert (env["GRADIO_ANALYTICS_ENABLED"], env["GRADIO_SHARE"]) == ("False", "False")
