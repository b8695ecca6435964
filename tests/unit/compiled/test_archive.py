"""What runs in the container: an archive read within bounds, and put into a cache whole or not at all."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from images.compiled.inside import archive as inside
from images.compiled.inside.archive import Refused, fill, is_kept, unit_of
from images.compiled.pack import pack
from images.core import process
from tests.helpers.compiled_code import FILES, archive_of, laid
from tests.helpers.nonempty import nonempty


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack(laid(tmp_path / "files"), tmp_path / "a.tar.gz")
    return tmp_path / "a.tar.gz"


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and inside.OWN not in path.parts
    }


def test_an_empty_cache_is_filled(packed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert fill(packed, cache, "k") == {"state": "filled", "files": 4, "units": 3, "kept": 0}
    assert tree(cache) == FILES
    assert [path.name for path in sorted((cache / inside.OWN).iterdir())] == ["k.json", "lock"]


def test_a_second_time_nothing_is_done(packed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fill(packed, cache, "k")
    (cache / "triton/ABC/kernel.cubin").unlink()
    assert fill(packed, cache, "k") == {"state": "there"}
    assert "triton/ABC/kernel.cubin" not in tree(cache)


def test_what_is_there_stays_as_a_whole(packed: Path, tmp_path: Path) -> None:
    cache = laid(tmp_path / "cache", {"triton/ABC/mine": b"mine", "inductor/fx/graph": b"mine"})
    assert fill(packed, cache, "k") == {"state": "filled", "files": 4, "units": 1, "kept": 2}
    assert tree(cache) == {
        "triton/ABC/mine": b"mine",
        "inductor/fx/graph": b"mine",
        "vllm/torch_compile_cache/0123456789/rank_0_0/backbone/vllm_compile_cache.py": b"{}\n",
    }


def test_what_a_killed_one_has_left_goes(packed: Path, tmp_path: Path) -> None:
    cache = laid(tmp_path / "cache", {f"{inside.OWN}/incoming-x/triton/ABC/half": b"", f"{inside.OWN}/.k.1": b""})
    fill(packed, cache, "k")
    assert [path.name for path in sorted((cache / inside.OWN).iterdir())] == ["k.json", "lock"]
    assert tree(cache) == FILES


BAD: list[tuple[str, Callable[[Path], Path]]] = [
    ("leads elsewhere", lambda at: archive_of(at, [(entry("triton/../../etc/passwd"), b"x")])),
    ("leads elsewhere", lambda at: archive_of(at, [(entry("/etc/passwd"), b"x")])),
    ("leads elsewhere", lambda at: archive_of(at, [(entry("triton//x"), b"x")])),
    ("leads elsewhere", lambda at: archive_of(at, [(entry("triton/a\nb"), b"x")])),
    ("leads elsewhere", lambda at: archive_of(at, [(entry("triton/" + "n" * 256), b"x")])),
    ("leads elsewhere", lambda at: archive_of(at, [(entry("triton/" + "/".join("abcdefghijklmnopq")), b"x")])),
    ("no folder of compiled code", lambda at: archive_of(at, [(entry("huggingface/hub/model.safetensors"), b"x")])),
    ("no folder of compiled code", lambda at: archive_of(at, [(entry(".compiled/other.json"), b"x")])),
    ("no folder of compiled code", lambda at: archive_of(at, [(entry("triton"), b"x")])),
    ("no plain file", lambda at: archive_of(at, [(entry("triton/l", tarfile.SYMTYPE, "/etc/passwd"), b"")])),
    ("no plain file", lambda at: archive_of(at, [(entry("triton/l", tarfile.LNKTYPE, "../../x"), b"")])),
    ("no plain file", lambda at: archive_of(at, [(entry("triton/d", tarfile.CHRTYPE), b"")])),
    ("no plain file", lambda at: archive_of(at, [(entry("triton/p", tarfile.FIFOTYPE), b"")])),
    ("no plain file", lambda at: archive_of(at, [(entry("triton/d", tarfile.DIRTYPE), b"")])),
    ("stands twice", lambda at: archive_of(at, [(entry("triton/a/b"), b"x"), (entry("triton/a/b"), b"y")])),
    ("not in its place", lambda at: archive_of(at, [(entry("triton/b/b"), b"x"), (entry("triton/a/b"), b"y")])),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_archive_is_refused_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    why, make = BAD[number]
    cache = tmp_path / "cache"
    with pytest.raises(Refused, match=why):
        fill(make(tmp_path / "a.tar.gz"), cache, "k")
    assert tree(cache) == {}
    assert [path.name for path in (cache / inside.OWN).iterdir()] == ["lock"]
    assert not (tmp_path / "etc").exists()


def test_a_bad_entry_after_good_ones_leaves_nothing(tmp_path: Path) -> None:
    good, bad = (entry("triton/a/b"), b"x"), (entry("triton/l", tarfile.SYMTYPE, "/etc"), b"")
    with pytest.raises(Refused):
        fill(archive_of(tmp_path / "a.tar.gz", [good, bad]), tmp_path / "cache", "k")
    assert tree(tmp_path / "cache") == {}


@pytest.mark.parametrize("cut", [0, 5, 40, -9, -1])
def test_a_damaged_archive_is_refused(packed: Path, tmp_path: Path, cut: int) -> None:
    packed.write_bytes(packed.read_bytes()[:cut])
    with pytest.raises(Refused, match="cannot be unpacked"):
        fill(packed, tmp_path / "cache", "k")
    assert tree(tmp_path / "cache") == {}


@pytest.mark.parametrize(("name", "most"), [("MOST_FILES", 3), ("MOST_BYTES", 10), ("MOST_FILE", 4)])
def test_an_archive_has_bounds(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(inside, name, most)
    with pytest.raises(Refused, match="more than"):
        fill(packed, tmp_path / "cache", "k")
    assert tree(tmp_path / "cache") == {}


def test_nothing_is_written_through_a_link_of_the_cache(packed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/triton").symlink_to(elsewhere)
    with pytest.raises(Refused, match="is a link"):
        fill(packed, tmp_path / "cache", "k")
    assert not list(elsewhere.iterdir())
    assert not (tmp_path / "cache" / inside.OWN / "k.json").exists()


def test_programs_stay_programs_and_nothing_else_does(tmp_path: Path) -> None:
    files = laid(tmp_path / "files")
    (files / "triton/ABC/kernel.cubin").chmod(0o4755)
    pack(files, tmp_path / "a.tar.gz")
    fill(tmp_path / "a.tar.gz", tmp_path / "cache", "k")
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "cache/triton/ABC").iterdir()}
    assert modes == {"kernel.cubin": 0o755, "kernel.json": 0o644}


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("triton/ABC/kernel.json", "triton/ABC"),
        ("vllm/torch_compile_cache/0123456789/rank_0_0/x/y", "vllm/torch_compile_cache/0123456789"),
        (
            "vllm/torch_compile_cache/torch_aot_compile/ff/rank_0_0/model",
            "vllm/torch_compile_cache/torch_aot_compile/ff",
        ),
        ("cuda/9/index", "cuda"),
        ("inductor/ab/cab.py", "inductor/ab/cab.py"),
    ],
)
def test_what_is_moved_as_a_whole(path: str, unit: str) -> None:
    assert unit_of(path) == unit


def test_what_is_worth_to_be_kept() -> None:
    kept = ["triton/A/k.cubin", "vllm/torch_compile_cache/x/y", "cuda/index", "flashinfer/x.so", "inductor/a/b.py"]
    others = [
        "huggingface/hub/blobs/x", "vllm/modelinfos/x.json", "vllm/startup_plan/x.json", "triton", "config/vllm/x",
        "inductor/locks/x.lock", "inductor/a/__pycache__/b.pyc", "triton/tmp.pid_7_x/k.ttir", "triton/.hidden",
        "tritonx/a", ".compiled/k.json",
    ]  # fmt: skip
    assert all(is_kept(path) for path in nonempty(kept))
    assert not any(is_kept(path) for path in nonempty(others))


def test_it_runs_as_a_program_without_the_rest(packed: Path, tmp_path: Path) -> None:
    def run(archive: Path, folder: Path) -> tuple[int, str]:
        words = [sys.executable, "-I", "-S", "-B", inside.__file__, str(archive), str(folder), "k"]
        done = process.run(words, cwd=tmp_path, check=False)
        return done.code, json.loads(done.out)["state"]

    assert run(packed, tmp_path / "cache") == (0, "filled")
    assert run(packed, tmp_path / "cache") == (0, "there")
    packed.write_bytes(b"no archive")
    assert run(packed, tmp_path / "other") == (inside.REFUSED, "refused")
    (tmp_path / "file").write_text("")
    assert run(packed, tmp_path / "file") == (inside.CLOSED, "closed")
    assert [path.name for path in (tmp_path / "other").iterdir()] == [inside.OWN]
