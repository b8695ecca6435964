"""Slimming a folder: killed, full, forbidden, twice at once; what stays of a file beside its bytes; bare files."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess  # noqa: TID251 - a run is killed here
import sys
import time
from pathlib import Path

import pytest

from images.device_code import slim
from images.device_code.choose import parse_wanted
from images.device_code.folder_lock import FolderBusy, locked, sweep
from images.device_code.record import RecordError, file_hash, owners, update_record
from images.device_code.slim import slim_command, slim_folder, slim_library
from tests.helpers.elf_files import PTX, Code, container, cubin, library, ptx_text
from tests.helpers.nonempty import nonempty

BIG = container(Code(75, size=9000, fill=1), Code(80, size=9000, fill=2), Code(86, size=9000, fill=3))
CARD = [parse_wanted("7.5")]


def installed(root: Path, files: dict[str, bytes], name: str = "pkg") -> Path:
    """A site-packages with one wheel of these files."""
    site = root / "site-packages"
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    rows = []
    for place, content in files.items():
        path = site / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        rows.append(f"{place},{file_hash(path)},{len(content)}\n")
    (info / "RECORD").write_text("".join(rows) + f"{name}-1.0.dist-info/RECORD,,\n")
    return site


def wrong_rows(site: Path) -> list[str]:
    """Rows of RECORDs that say otherwise than the files."""
    wrong = []
    for record in nonempty(sorted(site.glob("*.dist-info/RECORD"))):
        for row in csv.reader(record.read_text().splitlines()):
            path = site / row[0]
            if row[1] and (not path.is_file() or (file_hash(path), str(path.stat().st_size)) != (row[1], row[2])):
                wrong.append(row[0])
    return wrong


def parts(site: Path) -> list[Path]:
    return list(site.rglob("*.part"))


MANY = {f"pkg/lib{number:02}.so": library([BIG, BIG], tail=b"t" * 40000 + bytes([number])) for number in range(12)}


def test_a_killed_run_is_repaired_by_the_next(tmp_path: Path) -> None:
    """Killed at 25 moments: the second run leaves no part, and every row of RECORD is right."""
    left = 0
    for turn in range(25):
        site = installed(tmp_path / str(turn), MANY)
        command = [sys.executable, "-m", "images.device_code.slim", str(site), "--arch", "7.5"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _kill_within(running, site, turn)
        left += bool(parts(site)) + bool(wrong_rows(site))
        slim_folder(site, CARD)
        assert parts(site) == []
        assert wrong_rows(site) == []
        assert not slim_folder(site, CARD).mended
    assert left, "no kill met a run at work: the test shows nothing"


def _kill_within(running: subprocess.Popen[bytes], site: Path, turn: int) -> None:
    """Kill once the run has begun to write, a little later each time."""
    record = site / "pkg-1.0.dist-info/RECORD"
    inode = record.stat().st_ino
    while running.poll() is None and record.stat().st_ino == inode and not parts(site):
        time.sleep(0.0005)
    time.sleep(0.0004 * turn)
    running.send_signal(signal.SIGKILL)
    running.wait()


def test_a_row_that_a_killed_run_left_wrong_is_mended_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = installed(tmp_path, {"pkg/lib.so": library([BIG])})
    slim_library(site / "pkg/lib.so", CARD)  # without its row
    assert wrong_rows(site)
    assert slim_command(str(site), ["7.5"]) == 0
    assert wrong_rows(site) == []
    assert "RECORD was wrong and is right now: pkg/lib.so" in capsys.readouterr().out


def test_parts_of_killed_runs_go_also_those_of_earlier_versions(tmp_path: Path) -> None:
    site = installed(tmp_path, {"pkg/lib.so": library([BIG])})
    content = library([BIG])
    ours = [site / "pkg/.cardstock-ab_9Zx.part", site / "pkg/.lib.so.a1b2c3d4.part"]
    ours.append(site / "pkg-1.0.dist-info/.RECORD.4242.part")
    others = [site / "pkg/.download.a1b2c3d4.part", site / "pkg/lib.so.part"]
    for path in (*ours, *others):
        path.write_bytes(content)
    report = slim_folder(site / "pkg", CARD)
    assert sorted(report.swept) == sorted(map(str, ours))
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_no_row_is_changed_where_a_file_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = installed(tmp_path, {"pkg/lib.so": library([BIG])})
    real = os.replace

    def refuse(old: object, new: object) -> None:
        if str(new).endswith("lib.so"):
            raise OSError(28, "No space left on device")
        real(old, new)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space") as caught:
        slim_folder(site, CARD)
    assert caught.value.filename == str(site / "pkg/lib.so")
    assert wrong_rows(site) == []
    assert parts(site) == []


def test_two_runs_at_once_wait_for_one_another(tmp_path: Path) -> None:
    site = installed(tmp_path, MANY)
    command = [sys.executable, "-m", "images.device_code.slim", str(site), "--arch", "7.5"]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    for run in runs:
        assert run.stderr is not None
        run.stderr.close()
    assert wrong_rows(site) == []
    assert parts(site) == []


@pytest.mark.parametrize("held", ["site-packages", "site-packages/pkg", "."])
def test_a_folder_is_held_with_those_above_and_below(tmp_path: Path, held: str) -> None:
    site = installed(tmp_path, {"pkg/lib.so": library([BIG])})
    lines: list[str] = []
    with locked(tmp_path / held, lines.append):
        handle = os.open(site, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) if held != "." else _taken(tmp_path)
        os.close(handle)
        with pytest.raises(FolderBusy), locked(site / "pkg", lines.append, limit=0):
            pass
    assert lines == [f"waiting: another run works in {tmp_path if held == '.' else site}"]
    with locked(site, lines.append, limit=0):
        pass


def _taken(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(handle)


def test_attributes_and_hard_links_stay(tmp_path: Path) -> None:
    site = installed(tmp_path, {"pkg/lib.so": library([BIG]), "pkg/other.so": library([BIG, BIG])})
    path, second = site / "pkg/lib.so", site / "pkg/lib.so.1"
    second.hardlink_to(path)
    outside = tmp_path / "cache.so"
    outside.hardlink_to(path)
    before = path.read_bytes()
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    os.setxattr(site / "pkg-1.0.dist-info/RECORD", "user.note", b"kept too")
    slim_folder(site, CARD)
    assert path.stat().st_size < len(before)
    assert path.samefile(second)
    assert outside.read_bytes() == before
    assert os.getxattr(path, "user.note") == b"kept"
    assert os.getxattr(site / "pkg-1.0.dist-info/RECORD", "user.note") == b"kept too"
    assert wrong_rows(site) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    site = installed(tmp_path, {"pkg/lib.so": library([BIG])})
    for path in (site / "pkg/lib.so", site / "pkg-1.0.dist-info/RECORD"):
        os.chown(path, 1234, 2345)
        path.chmod(0o4750)
    slim_folder(site, CARD)
    for path in (site / "pkg/lib.so", site / "pkg-1.0.dist-info/RECORD"):
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 2345, 0o4750)


def test_a_link_to_a_library_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.so"
    real.write_bytes(library([BIG]))
    link = tmp_path / "link.so"
    link.symlink_to(real)
    slim_library(link, CARD)
    assert link.is_symlink()
    assert real.stat().st_size < len(library([BIG]))


@pytest.mark.parametrize("size", [10, 100, 5000, -1])
def test_a_library_that_was_cut_is_refused(tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    site = installed(tmp_path, {"pkg/lib.so": library([BIG])[:size]})
    assert slim_command(str(site), ["7.5"]) == 1
    assert "cut short" in capsys.readouterr().err


def test_a_file_that_may_not_be_read_is_told_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = installed(tmp_path, {"pkg/a.so": library([BIG]), "pkg/b.so": library([BIG, BIG])})
    real = slim.slim_library

    def refuse(path: Path, *words: object, **more: object) -> object:
        if path.name == "a.so":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(slim, "slim_library", refuse)
    assert slim_command(str(site), ["7.5"]) == 1
    assert "a.so: cannot be read or replaced: Permission denied" in capsys.readouterr().err
    assert (site / "pkg/b.so").stat().st_size < len(library([BIG, BIG]))


def test_a_record_that_is_none_ends_the_run_before_anything_is_changed(tmp_path: Path) -> None:
    for number, make in enumerate(nonempty([_pipe, _bytes, _huge])):
        site = installed(tmp_path / str(number), {"pkg/lib.so": library([BIG])})
        record = site / "pkg-1.0.dist-info/RECORD"
        record.unlink()
        make(record)
        with pytest.raises(RecordError, match="RECORD"):
            slim_folder(site, CARD)
        assert (site / "pkg/lib.so").read_bytes() == library([BIG])


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _bytes(path: Path) -> None:
    path.write_bytes(b"\xff\xfe,x,1\n")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


CUBINS = {
    "pkg/cubins/a_sm100.cubin": cubin(100),
    "pkg/cubins/b_sm100a.cubin": cubin(100, "a"),
    "pkg/cubins/c_sm90a.cubin": cubin(90, "a"),
    "pkg/cubins/d_sm75.cubin": cubin(75),
    "pkg/cubins/e.fatbin": container(Code(80), Code(90)),
    "pkg/cubins/f.fatbin": container(Code(80, kind=PTX)),
    "pkg/cubins/g.ptx": ptx_text("sm_90a"),
    "pkg/cubins/h.ptx": ptx_text("sm_70"),
    "pkg/cubins/checksums.txt": b"a_sm100.cubin 00\n",
}


@pytest.mark.parametrize(
    ("archs", "stays"),
    [
        (["7.5"], "d_sm75.cubin h.ptx"),
        (["9.0"], "c_sm90a.cubin e.fatbin f.fatbin g.ptx h.ptx"),
        (["10.3"], "a_sm100.cubin f.fatbin h.ptx"),
        (["10.0", "7.5"], "a_sm100.cubin b_sm100a.cubin d_sm75.cubin f.fatbin h.ptx"),
    ],
)
def test_files_of_other_cards_go_with_their_rows(tmp_path: Path, archs: list[str], stays: str) -> None:
    site = installed(tmp_path, CUBINS)
    report = slim_folder(site, [parse_wanted(arch) for arch in archs])
    left = sorted(path.name for path in (site / "pkg/cubins").iterdir())
    assert left == sorted([*stays.split(), "checksums.txt"])
    assert len(report.removed) == len(CUBINS) - len(left)
    assert report.before > report.after
    assert wrong_rows(site) == []


def test_a_cubin_that_cannot_be_read_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = installed(tmp_path, {"pkg/cut.cubin": cubin(100)[:80], "pkg/odd.fatbin": b"packed" * 20})
    assert slim_command(str(site), ["7.5"]) == 1
    assert "cut.cubin" in capsys.readouterr().err
    assert len(list((site / "pkg").iterdir())) == 2


def test_names_are_quoted_and_hide_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "li\nb\x1b[2J\u202e\u2028.so"
    site = installed(tmp_path, {})
    (site / name).write_bytes(library([BIG]))
    (site / "cut\n.so").write_bytes(library([BIG])[:-64])
    assert slim_command(str(site), ["7.5"]) == 1
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert all(line.isprintable() for line in text.splitlines())
    assert repr(name) in told.out
    assert slim_command(str(site), ["7.5"], as_json=True) == 1
    assert len(json.loads(capsys.readouterr().out)["libraries"]) == 1


def test_one_row_is_changed_and_the_others_stay_byte_for_byte(tmp_path: Path) -> None:
    site = installed(tmp_path, {"pkg/lib.so": library([BIG])})
    record = site / "pkg-1.0.dist-info/RECORD"
    record.write_bytes(b'"a,b.py",sha256=x,1\r\npkg/lib.so,sha256=y,2\r\nno newline,,')
    owner = owners(site)[site / "pkg/lib.so"]
    update_record(owner, "sha256=z", 3)
    assert record.read_bytes() == b'"a,b.py",sha256=x,1\r\npkg/lib.so,sha256=z,3\r\nno newline,,'


def test_sweeping_takes_no_folder_and_no_link(tmp_path: Path) -> None:
    (tmp_path / ".cardstock-folder.part").mkdir()
    assert sweep(tmp_path) == []


def test_a_folder_without_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code of libraries and files of nothing else go, NVIDIA's own stay, and each row of RECORD is right."""
    own = library([BIG])
    files = {"pkg/a.so": library([BIG, BIG]), "pkg/k.cubin": cubin(75), "pkg/k.ptx": ptx_text("sm_75")}
    site = installed(tmp_path, {**files, "nvidia/cufft/lib/libcufft.so.11": own, "pkg/none.so": library()})
    assert slim.main([str(site), "--no-card"]) == 0
    assert "libraries for no card" in (told := capsys.readouterr().out)
    assert "sm_75 sm_80 sm_86 -> none" in told
    assert "of cards removed" in told
    assert sorted(path.name for path in (site / "pkg").iterdir()) == ["a.so", "none.so"]
    assert (site / "nvidia/cufft/lib/libcufft.so.11").read_bytes() == own
    assert wrong_rows(site) == []
    names = (site / "pkg-1.0.dist-info/RECORD").read_text()
    assert "k.cubin" not in names
    assert "k.ptx" not in names
    first = (site / "pkg/a.so").read_bytes()
    assert slim.main([str(site), "--no-card"]) == 0
    assert (site / "pkg/a.so").read_bytes() == first
