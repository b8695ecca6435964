"""Folders to work in: gone at the end, swept after a kill, never while their process lives."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from images.core import process
from images.core.work import can_write, sweep, work_folder, work_root
from tests.helpers.matrices import ROOT

CHILD = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from images.core.work import work_folder
with work_folder("push", Path({place!r})) as folder:
    (folder / "layer").write_bytes(b"x" * 1000)
    Path({flag!r}).touch()
    time.sleep(100)
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "state"))


def folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def test_it_lies_below_the_state_folder_under_its_name_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with work_folder("push") as folder:
        assert folder.parent == work_root() == tmp_path / "state/work"
        assert folder.name.startswith(f"push-{os.getpid()}-")
    with pytest.raises(KeyboardInterrupt), work_folder("push"):
        raise KeyboardInterrupt
    assert folders(work_root()) == []


def begun(tmp_path: Path) -> int:
    """A process that works, as its id."""
    flag = tmp_path / "flag"
    code = CHILD.format(root=str(ROOT), place=str(work_root()), flag=str(flag))
    pid = process.start_daemon([sys.executable, "-c", code], tmp_path / "log")
    end = time.monotonic() + 30
    while not flag.exists():
        assert time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.05)
    return pid


def test_what_a_killed_run_left_is_swept_by_the_next_and_a_living_ones_stays(tmp_path: Path) -> None:
    pid = begun(tmp_path)
    assert sweep() == 0
    (left,) = folders(work_root())
    with work_folder("pull"):
        assert left.is_dir(), "its process lives"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert left.is_dir()
    with work_folder("pull") as own:
        assert folders(work_root()) == [own]


def test_the_bytes_that_were_dropped_are_told(tmp_path: Path) -> None:
    pid = begun(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert sweep() == 1000


def test_what_lies_in_a_leftover_is_unmounted_first(tmp_path: Path) -> None:
    (tmp_path / "root/bootstrap-1-x").mkdir(parents=True)
    seen: list[str] = []
    with work_folder("bootstrap", tmp_path / "root", lambda folder: seen.append(folder.name)) as own:
        assert seen == ["bootstrap-1-x"]
    assert seen == ["bootstrap-1-x", own.name]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST])
def test_without_a_state_folder_it_lies_in_the_temporary_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", closed)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert not can_write(work_root())
    with work_folder("blob") as folder:
        assert folder.parent == tmp_path
    assert not folder.exists()


def test_a_full_disk_is_no_reason_to_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"), work_folder("blob"):
        pass
