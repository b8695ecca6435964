"""Compiled code packed: the same bytes of the same files; what a container's folder may bring, and what not."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from images.compiled import pack as packing
from images.compiled.inside.archive import members
from images.compiled.pack import check_archive, pack, take
from images.core.errors import CheckFailed, Unsafe
from images.registry import digest_of_file
from tests.helpers.compiled_code import FILES, laid


def tar_of(*entries: tuple[str, bytes, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd"
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = laid(tmp_path / "one"), laid(tmp_path / "two", dict(reversed(FILES.items())))
    for number, path in enumerate(sorted(two.rglob("*"))):
        os.utime(path, (number, number))
    (two / "triton/ABC/kernel.json").chmod(0o600)
    (two / "empty").mkdir()
    assert pack(one, tmp_path / "1") == pack(two, tmp_path / "2") == (4, sum(map(len, FILES.values())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    entries = [entry for entry, _ in members(tmp_path / "1")]
    assert [entry.name for entry in entries] == sorted(FILES)
    assert {(e.uid, e.gid, e.uname, e.gname, e.mtime, e.mode) for e in entries} == {(0, 0, "", "", 0, 0o644)}


def test_names_of_any_length_that_is_allowed(tmp_path: Path) -> None:
    files = {"triton/" + "/".join(["n" * 60] * 10): b"x", "triton/ABC/grün": b"y"}
    pack(laid(tmp_path / "one", files), tmp_path / "1")
    assert {entry.name for entry, _ in members(tmp_path / "1")} == set(files)


def test_links_are_not_packed(tmp_path: Path) -> None:
    folder = laid(tmp_path / "one")
    (folder / "triton/link").symlink_to("/etc/passwd")
    assert pack(folder, tmp_path / "1")[0] == 4


def test_plain_files_of_compiled_code_are_taken_and_nothing_else(tmp_path: Path) -> None:
    brought = tar_of(
        ("torch_compile_cache/", tarfile.DIRTYPE, b""),
        ("torch_compile_cache/hash/model", tarfile.REGTYPE, b"code"),
        ("torch_compile_cache/hash/link", tarfile.SYMTYPE, b""),
        ("torch_compile_cache/hash/x.lock", tarfile.REGTYPE, b""),
        ("elsewhere/file", tarfile.REGTYPE, b""),
    )
    assert take([brought[:700], brought[700:]], "vllm", tmp_path) == 1
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "vllm/torch_compile_cache/hash/model"
    ]


def test_a_name_that_leads_elsewhere_ends_it(tmp_path: Path) -> None:
    brought = tar_of(("triton/../../x", tarfile.REGTYPE, b"code"))
    assert take([brought], "", tmp_path / "a") == 0 or not (tmp_path / "x").exists()
    with pytest.raises(CheckFailed, match="cannot be kept"):
        take([tar_of(("triton/a//b", tarfile.REGTYPE, b"code"))], "", tmp_path / "a")


@pytest.mark.parametrize(("name", "most"), [("MOST_FILES", 1), ("MOST_BYTES", 5), ("MOST_FILE", 3)])
def test_what_is_taken_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> None:
    monkeypatch.setattr(packing, name, most)
    brought = tar_of(("triton/a/b", tarfile.REGTYPE, b"code"), ("triton/a/c", tarfile.REGTYPE, b"code"))
    with pytest.raises(CheckFailed, match="more than compiled code has"):
        take([brought], "", tmp_path)


def test_an_archive_is_held_against_its_record(tmp_path: Path) -> None:
    files, unpacked = pack(laid(tmp_path / "one"), tmp_path / "1")
    archive = tmp_path / "1"
    sha256, size = digest_of_file(archive)[7:], archive.stat().st_size
    check_archive(archive, sha256, size, files, unpacked, "here")
    with pytest.raises(Unsafe, match=r"(?s)damaged.*not 7"):
        check_archive(archive, sha256, 7, files, unpacked, "here")
    with pytest.raises(Unsafe, match=r"(?s)damaged.*SHA-256 is another"):
        check_archive(archive, "0" * 64, size, files, unpacked, "here")
    with pytest.raises(Unsafe, match=r"(?s)refused.*its record tells of 5"):
        check_archive(archive, sha256, size, 5, unpacked, "here")
    archive.write_bytes(b"x" * size)
    with pytest.raises(Unsafe, match=r"(?s)is refused.*cannot be unpacked"):
        check_archive(archive, digest_of_file(archive)[7:], size, files, unpacked, "here")
