"""`./inv slim`: its errors, and their exit codes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from images.commands.slim import SlimOptions, slim_folder
from images.core.errors import CardstockError, CheckFailed, UsageError
from images.device_code.folder_lock import FolderBusy
from images.device_code.record import RecordError
from tests.helpers.elf_files import Code, container, library

BIG = container(Code(75, size=9000), Code(80, size=9000))


def refused(folder: Path | str, *archs: str) -> CardstockError:
    with pytest.raises(CardstockError) as caught:
        slim_folder(SlimOptions(str(folder), archs))
    return caught.value


@pytest.mark.parametrize("folder", ["", " ", "/absent", "{file}"])
def test_what_is_no_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / "lib.so").write_bytes(library([BIG]))
    error = refused(folder.format(file=tmp_path / "lib.so"), "7.5")
    assert error.exit_code == 2
    assert (tmp_path / "lib.so").read_bytes() == library([BIG])


@pytest.mark.parametrize(("arch", "nearest"), [("12.9", "12.1"), ("7.9", "8.0"), ("2.5", "5.0"), ("99.9", "12.1")])
def test_a_card_that_there_is_not_cuts_nothing_away(tmp_path: Path, arch: str, nearest: str) -> None:
    (tmp_path / "lib.so").write_bytes(library([BIG]))
    error = refused(tmp_path, arch)
    assert (error.exit_code, error.do) == (2, f"nearest: {nearest}")
    assert (tmp_path / "lib.so").read_bytes() == library([BIG])


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "lib.so"), 1, "no space left to write lib.so"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "lib.so"), 1, "no space left to write lib.so"),
        (OSError(errno.EROFS, "Read-only file system", "li\nb.so"), 2, r"'li\nb.so' cannot be changed"),
        (OSError(errno.EIO, "Input/output error", "lib.so"), 1, "lib.so cannot be read or written"),
        (PermissionError(errno.EACCES, "Permission denied", "."), 2, "cannot be changed"),
        (FolderBusy("another run"), 1, "nothing was slimmed"),
        (RecordError("no table"), 1, "nothing was slimmed"),
    ],
)
def test_what_stops_a_run_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int, words: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("images.device_code.slim.slim_folder", stop)
    error = refused(tmp_path, "7.5")
    assert error.exit_code == code
    assert words in error.what
    assert "defect" not in str(error)


def test_a_full_stdout_is_not_taken_for_a_full_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("images.device_code.slim.slim_command", stop)
    with pytest.raises(OSError, match="No space"):
        slim_folder(SlimOptions(str(tmp_path), ("7.5",)))


def test_a_cut_library_ends_with_one(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(library([BIG])[:-1000])
    error = refused(tmp_path, "7.5")
    assert isinstance(error, CheckFailed)
    assert not isinstance(error, UsageError)
    assert [path.name for path in tmp_path.iterdir()] == ["lib.so"]
