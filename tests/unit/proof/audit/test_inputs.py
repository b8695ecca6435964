"""What people give `audit` that is no good file: pipes, devices, bombs, forbidden and damaged things, odd names."""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
from pathlib import Path

import pytest

from images.core.errors import CheckFailed, UsageError
from images.core.report import Report
from images.device_code import fatbin, sources, zip_bounds
from images.device_code.sources import Unreadable, read_folder
from images.proof.audit.target import audit_command, audit_path, audit_target
from tests.helpers.elf_files import cubin, library, ptx_text, sm
from tests.helpers.nonempty import nonempty

GOOD = library([sm(75, 80)])


def audited(target: Path | str, *archs: str) -> str:
    """What the command prints to stdout."""
    out = io.StringIO()
    audit_command(str(target), archs, json=False, report=Report(out, io.StringIO(), live=False))
    return out.getvalue()


def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.whl")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s.so"))
    for path, kind in nonempty([(tmp_path / "pipe.whl", "a pipe"), (tmp_path / "s.so", "a socket")]):
        with pytest.raises(UsageError, match="is no file") as caught:
            audit_path(path)
        assert kind in caught.value.cause
    listener.close()
    for device in nonempty(["/dev/zero", "/dev/full", "/dev/null"]):
        with pytest.raises(UsageError, match="is no file"):
            audit_path(Path(device))


def test_what_is_no_file_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.so")
    (tmp_path / "zero.so").symlink_to("/dev/zero")
    (tmp_path / "lib.so").write_bytes(GOOD)
    assert [name for name, _ in read_folder(tmp_path)] == ["lib.so"]


@pytest.mark.parametrize("target", ["", " ", "\n"])
def test_an_empty_target_is_not_this_folder(target: str) -> None:
    with pytest.raises(UsageError, match="nothing to audit"):
        audit_target(target)


def overlapping(path: Path, count: int) -> Path:
    """A zip whose members all lead to the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("lib0.so", GOOD[:64] + bytes(5_000_000))
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    entry = content[at:end]
    table = b"".join(
        entry.replace(b"lib0.so", f"lib{number}.so".encode()[:7].ljust(7, b"_")) for number in range(count)
    )
    tail = bytearray(content[end:])
    struct.pack_into("<HHII", tail, 8, count, count, len(table), at)
    path.write_bytes(content[:at] + table + tail)
    return path


def test_members_that_overlap_are_not_unpacked(tmp_path: Path) -> None:
    path = overlapping(tmp_path / "bomb.whl", 10)
    assert path.stat().st_size < 31_000
    with pytest.raises(CheckFailed, match="is not unpacked") as caught:
        audit_path(path)
    assert "overlap" in caught.value.cause


@pytest.mark.parametrize("members", [1, 8])
def test_a_wheel_that_unpacks_to_much_is_not_unpacked(tmp_path: Path, members: int) -> None:
    path = tmp_path / "bomb.whl"
    size = 300_000_000 // members
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for number in range(members):
            wheel.writestr(f"lib{number}.so", GOOD[:64] + bytes(size))
    with pytest.raises(CheckFailed, match="is not unpacked") as caught:
        audit_path(path)
    assert "no library is packed like that" in caught.value.cause


def test_a_wheel_of_too_many_members_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for number in range(20):
            wheel.writestr(f"lib{number}.so", GOOD)
    assert "lib7.so" in audited(path)
    monkeypatch.setattr(zip_bounds, "MOST_MEMBERS", 19)
    with pytest.raises(CheckFailed, match="is not unpacked"):
        audit_path(path)


def test_a_folder_of_too_many_files_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").touch()
    monkeypatch.setattr(sources, "_MOST_FILES", 4)
    with pytest.raises(UsageError) as caught:
        audit_path(tmp_path)
    assert "more than 4 files" in caught.value.cause


def test_what_may_not_be_read_is_told_and_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/lib.so").write_bytes(GOOD)
    (tmp_path / "secret.so").write_bytes(GOOD)
    (tmp_path / "lib.so").write_bytes(GOOD)
    scandir, read = os.scandir, fatbin.read

    def closed(path: str | Path) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def secret(source: object, name: str = "") -> object:
        if str(source).endswith("secret.so"):
            raise PermissionError(13, "Permission denied", str(source))
        return read(source, name)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "scandir", closed)
    monkeypatch.setattr(sources, "read", secret)
    found = dict(read_folder(tmp_path))
    assert isinstance(found["closed"], Unreadable)
    assert isinstance(found["secret.so"], Unreadable)
    with pytest.raises(CheckFailed, match=r"of 2 files or folders .* nothing can be told") as caught:
        audited(tmp_path)
    assert "closed: cannot be read: Permission denied" in caught.value.cause
    out = io.StringIO()
    with pytest.raises(CheckFailed):
        audit_command(str(tmp_path), ["7.5"], json=False, report=Report(out, io.StringIO(), live=False))
    assert "native" in out.getvalue()
    assert "unknown" in out.getvalue()


def test_names_are_quoted_in_tables_and_errors(tmp_path: Path) -> None:
    name = "li\nb\x1b[2J\u202e\u2028.so"
    (tmp_path / name).write_bytes(GOOD)
    (tmp_path / "cut\u202e.so").write_bytes(GOOD[:-64])
    out = io.StringIO()
    with pytest.raises(CheckFailed) as caught:
        audit_command(str(tmp_path), ["9.0"], json=False, report=Report(out, io.StringIO(), live=False))
    assert all(line.isprintable() for line in out.getvalue().splitlines())
    assert repr(name) in out.getvalue()
    assert all(line.isprintable() for line in str(caught.value).splitlines())


def test_a_long_list_of_names_is_cut_in_the_error(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"k{number}.cubin").write_bytes(cubin(100))
    with pytest.raises(CheckFailed, match=r"40 of 40 libraries lack code for 9\.0") as caught:
        audited(tmp_path, "9.0")
    assert "and 35 more" in caught.value.cause


def test_a_cache_of_tritons_and_a_folder_of_cubins(tmp_path: Path) -> None:
    cache = tmp_path / "ABC234"
    cache.mkdir()
    for name, content in nonempty({"k.cubin": cubin(90, "a"), "k.ptx": ptx_text("sm_90a"), "k.json": b"{}"}.items()):
        (cache / name).write_bytes(content)
    text = audited(tmp_path, "9.0")
    assert "ABC234/k.cubin" in text
    assert "ABC234/k.ptx" in text
    with pytest.raises(CheckFailed, match="2 of 2"):
        audited(tmp_path, "8.6")


@pytest.mark.parametrize("text", ["7.5 8.0", "7.5,8.0", "7.5;8.0", "sm_75 80"])
def test_several_cards_in_one_word(tmp_path: Path, text: str) -> None:
    (tmp_path / "lib.so").write_bytes(GOOD)
    assert audited(tmp_path, text).splitlines()[0].split()[-2:] == ["7.5", "8.0"]
