"""An environment made of a lock with hashes: once, whole or not at all. uv is a stand-in, the lock is real."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from images.commands.demo import LOCK
from images.core.errors import RegistryFailure, Unsafe, UsageError
from images.core.locked_environment import find_uv, provide_environment, uv_settings
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
    made = provide_environment(ROOT / LOCK, tmp_path / "home", said.append, uv(tmp_path))
    assert made.is_file()
    assert provide_environment(ROOT / LOCK, tmp_path / "home", said.append, uv(tmp_path)) == made
    assert [call.split()[0] for call in calls(tmp_path)] == ["venv", "pip"]
    assert "--require-hashes" in calls(tmp_path)[1]
    assert len(said) == 1


def test_another_lock_is_another_environment(tmp_path: Path) -> None:
    (tmp_path / "demo.lock").write_text("gradio==1")
    first = provide_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path))
    assert provide_environment(tmp_path / "demo.lock", tmp_path / "home", uv=uv(tmp_path)) != first


def test_one_that_broke_off_is_made_anew(tmp_path: Path) -> None:
    broken = uv(tmp_path, "echo 'error: connection reset' >&2; exit 2")
    with pytest.raises(RegistryFailure, match=r"packages of demo\.lock could not be installed") as told:
        provide_environment(ROOT / LOCK, tmp_path / "home", uv=broken)
    assert told.value.cause == "error: connection reset"
    assert [*(tmp_path / "home/environments").iterdir()] == []
    assert provide_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path)).is_file()


def test_a_package_that_is_not_the_locked_one_is_unsafe(tmp_path: Path) -> None:
    with pytest.raises(Unsafe, match=r"not what demo\.lock says"):
        provide_environment(
            ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path, "echo 'Hash mismatch for `gradio`' >&2; exit 1")
        )


def test_pips_settings_hold_for_uv_unless_it_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    provide_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path))
    assert all(call.startswith("https://index.example/simple ") for call in calls(tmp_path))
    assert uv_settings({"PIP_CERT": "/ca", "SSL_CERT_FILE": "/own"}) == {}
    assert uv_settings({"PIP_CERT": "/ca"}) == {"SSL_CERT_FILE": "/ca"}


def test_one_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    """It was made of an environment that has been removed, as uvx removes its own."""
    made = provide_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path))
    made.unlink()
    made.symlink_to(tmp_path / "gone/python")
    assert provide_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path)).is_file()
    assert [call.split()[0] for call in calls(tmp_path)] == ["venv", "pip"] * 2


def test_it_is_made_of_the_python_behind_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/python"))
    provide_environment(ROOT / LOCK, tmp_path / "home", uv=uv(tmp_path))
    words = calls(tmp_path)[0].split()
    assert words[words.index("--python") + 1] == os.path.realpath(sys.executable)
    assert "venv/python" not in words


def test_uv_that_is_nowhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("no uv")

    monkeypatch.setattr("uv.find_uv_bin", nowhere)
    with pytest.raises(UsageError, match="uv is not beside this Python"):
        find_uv()
