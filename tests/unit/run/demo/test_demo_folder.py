"""The folder of a page: gone with it, and at the next start where it was killed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from images.core import process
from images.run.demo.folder import page_folder, sweep
from tests.helpers.matrices import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from images.run.demo.folder import page_folder
with page_folder(Path(sys.argv[1])) as folder:
    (folder / "uploads" / "private.png").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_there_while_the_page_runs_and_gone_with_it(tmp_path: Path) -> None:
    with page_folder(tmp_path) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["tmp", "uploads"]
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), page_folder(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_page_left_goes_at_the_next_start_and_a_running_ones_stays(tmp_path: Path) -> None:
    done = process.run([sys.executable, "-c", KILLED, str(tmp_path)], env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.code == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "uploads" / "private.png").is_file()
    (tmp_path / "demo").mkdir()
    with page_folder(tmp_path) as running:
        assert not left.exists()
        (running / "uploads" / "a.png").write_bytes(b"x")
        with page_folder(tmp_path) as another:
            assert running.is_dir() and another.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_what_is_no_pages_folder_is_left(tmp_path: Path) -> None:
    (tmp_path / "demo-mine").mkdir()
    (tmp_path / "demo-file").write_text("")
    (tmp_path / "demo-link").symlink_to(tmp_path / "demo-mine")
    assert sweep(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 3
