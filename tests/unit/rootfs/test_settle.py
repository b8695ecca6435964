"""dockerfiles/build/settle: one time stamp for what a builder's step made."""

from __future__ import annotations

import os
from pathlib import Path

from images.core import process

SETTLE = Path(__file__).parents[3] / "dockerfiles" / "build" / "settle"
STAMP = 946_684_800  # 2000-01-01, UTC


def test_everything_below_and_the_folder_around_it_gets_one_time(tmp_path: Path) -> None:
    folder = tmp_path / "opt" / "venv"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "a b.py").write_text("1")
    (folder / "link").symlink_to("/nowhere")
    (tmp_path / "elsewhere").write_text("1")
    elsewhere = (tmp_path / "elsewhere").stat().st_mtime
    process.run([str(SETTLE), str(folder)])
    for path in (folder, folder / "lib", folder / "lib" / "a b.py", folder / "link", tmp_path / "opt"):
        assert path.lstat().st_mtime == STAMP, path
    assert (tmp_path / "elsewhere").stat().st_mtime == elsewhere


def test_what_has_the_time_already_is_not_touched(tmp_path: Path) -> None:
    settled = tmp_path / "venv" / "settled"
    settled.parent.mkdir()
    settled.write_text("1")
    os.utime(settled, (STAMP, STAMP))
    changed = settled.stat().st_ctime_ns
    (tmp_path / "venv" / "new").write_text("1")
    process.run([str(SETTLE), str(tmp_path / "venv")])
    assert settled.stat().st_ctime_ns == changed
    assert (tmp_path / "venv" / "new").stat().st_mtime == STAMP
