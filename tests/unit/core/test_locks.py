"""One makes a thing, others wait and are told for whom; a lock dies with its process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from images.core import process
from images.core.locks import LockTimeout, hold, hold_all, lock_path
from tests.helpers.matrices import ROOT


def test_the_second_waits_and_is_told_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    order: list[str] = []
    waiting = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    def second() -> None:
        with hold(tmp_path / "lock", "the pull of x", say) as waited:
            order.append(f"second, waited: {waited}")

    with hold(tmp_path / "lock", "the pull of x") as waited:
        assert not waited
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second, waited: True"]
    (line,) = said
    assert line.startswith(f"waiting for the pull of x: process {os.getpid()} (")


def test_who_has_it_is_told_without_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/program.py", "serve", "--env", "HF_TOKEN=secret"])
    with hold(tmp_path / "lock", "x"):
        text = (tmp_path / "lock").read_text()
    assert "./inv serve" in text
    assert "secret" not in text


def test_a_limit_ends_the_wait(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", "x"), pytest.raises(LockTimeout) as caught, hold(tmp_path / "lock", "x", seconds=0):
        pass
    assert str(os.getpid()) in caught.value.holder


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from images.core.locks import hold
with hold(Path({str(tmp_path / "lock")!r}), "x"):
    Path({str(tmp_path / "held")!r}).touch()
    time.sleep(100)
"""
    pid = process.start_daemon([sys.executable, "-c", code], tmp_path / "log")
    end = time.monotonic() + 30
    while not (tmp_path / "held").exists():
        assert time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with hold(tmp_path / "lock", "x", seconds=0) as waited:
        assert not waited


def test_several_are_taken_in_one_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path))
    with hold_all("build", [("b", "b"), ("a", "a"), ("a", "a")]) as waited:
        assert not waited
        assert sorted(path.name for path in (tmp_path / "locks").iterdir()) == ["build-a", "build-b"]


def test_a_name_from_outside_stays_in_the_folder(tmp_path: Path) -> None:
    for name in ("sha256:0a", "../../etc/passwd", "127.0.0.1:5000/team/x", "x" * 900, "a\nb"):
        path = lock_path("pull", name, tmp_path)
        assert path.parent == tmp_path / "locks"
        assert len(path.name) < 200 and "/" not in path.name
