"""Stand-ins in an installation: files, RECORDs, what goes with its distribution, and what hinders it."""

from __future__ import annotations

import csv
import io
import json
import os
from importlib.metadata import distributions
from pathlib import Path

import pytest

from images.device_code.dynamic import read_dynamic
from images.device_code.record import file_hash
from images.device_code.stand_ins.__main__ import main
from images.device_code.stand_ins.made import Made, dumps, loads, stand_ins_of
from tests.helpers import site_packages
from tests.helpers.compiled import compiled
from tests.helpers.nonempty import nonempty
from tests.helpers.site_packages import FUNCTIONS, WHERE, wheel

MADE = ["--version", "0.1.0", "--made", "nvidia/*/lib/libcufft.so.*=Fourier transforms (torch.fft)"]
OURS = "cardstock_stand_ins-0.1.0.dist-info"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return site_packages.cufft(tmp_path_factory.mktemp("real"))


@pytest.fixture
def site(tmp_path: Path, real: bytes) -> Path:
    """cuFFT alone in its wheel, and a wheel that shares a file with it."""
    folder = tmp_path / "site-packages"
    site_packages.cufft_wheel(folder, real)
    wheel(folder, "nvidia_nccl_cu12-2.21.5", {"nvidia/__init__.py": b"", "nvidia/nccl/lib/libnccl.so.2": real})
    return folder


def tree(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in sorted(site.rglob("*")) if path.is_file()}


def rows(record: Path) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in csv.reader(io.StringIO(record.read_text())) if row}


def test_the_library_is_ours_and_its_distribution_is_gone(site: Path, real: bytes) -> None:
    assert main([str(site), *MADE]) == 0
    made = read_dynamic((site / WHERE).read_bytes())
    assert made is not None
    assert made.soname == "libcufft.so.11"
    assert sorted(one.name for one in made.exports) == FUNCTIONS
    assert {one.version for one in made.exports} == {"libcufft.so.11"}
    assert set(made.needed) <= {"libc.so.6"}
    assert (site / WHERE).stat().st_size < 20_000
    kept = {"nvidia/__init__.py", WHERE, "nvidia/nccl/lib/libnccl.so.2"}
    others = {f"nvidia_nccl_cu12-2.21.5.dist-info/{name}" for name in ("METADATA", "RECORD", "licenses/License.txt")}
    assert set(tree(site)) == kept | others | {
        f"{OURS}/{name}" for name in ("INSTALLER", "METADATA", "RECORD", "stand_ins.json")
    }
    assert not (site / "nvidia/cufft/include").exists()


def test_it_is_a_distribution_of_its_own(site: Path) -> None:
    main([str(site), *MADE])
    found = {one.name: one for one in distributions(path=[str(site)])}
    ours = found["cardstock-stand-ins"]
    assert (ours.version, ours.metadata["License-Expression"]) == ("0.1.0", "Apache-2.0")
    assert "nvidia" not in str(ours.metadata).lower()
    for name, (digest, size) in nonempty(rows(site / OURS / "RECORD").items()):
        if name != f"{OURS}/RECORD":
            assert (digest, int(size)) == (file_hash(site / name), (site / name).stat().st_size)
    assert WHERE in rows(site / OURS / "RECORD")


def test_what_was_made_can_be_read(site: Path, real: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert stand_ins_of(site) == Made()
    main([str(site), *MADE])
    found = stand_ins_of(site)
    (one,) = found.stand_ins
    assert (one.file, one.soname, one.used_for) == (WHERE, "libcufft.so.11", "Fourier transforms (torch.fft)")
    assert (one.functions, one.left_out) == (4, {"C++": 2, "data": 1, "of another prefix": 1})
    assert (one.real_size, one.distribution) == (len(real), "nvidia-cufft-cu12")
    assert found.distributions == ("nvidia-cufft-cu12 11.2.1.3",)
    assert loads(dumps(found)) == found
    said = capsys.readouterr().out
    assert "libcufft.so.11 (Fourier transforms (torch.fft)): 4 functions" in said
    assert "nothing is left of nvidia-cufft-cu12 11.2.1.3" in said
    assert main([str(site), "--list"]) == 0
    assert loads(capsys.readouterr().out) == found


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"stand_ins": [{"file": 1}], "gone": [], "distributions": []}', "[" * 9999]
)
def test_a_list_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no list of stand-ins|Expecting value"):
        loads(text)


def test_a_distribution_with_another_library_stays(site: Path, real: bytes) -> None:
    record = wheel(site, "nvidia_all-13.0", {"nvidia/cu13/lib/libcufft.so.12": real, "nvidia/cu13/lib/libx.so": real})
    assert main([str(site), *MADE]) == 0
    assert set(rows(record)) >= {"nvidia/cu13/lib/libx.so", "nvidia_all-13.0.dist-info/METADATA"}
    assert "nvidia/cu13/lib/libcufft.so.12" not in rows(record)
    assert {one.file for one in stand_ins_of(site).stand_ins} == {WHERE, "nvidia/cu13/lib/libcufft.so.12"}


def test_what_is_gone_takes_its_distribution_along(site: Path) -> None:
    (site / "nvidia/nccl/__pycache__").mkdir()
    assert main([str(site), "--version", "0.1.0", "--gone", "nvidia/nccl/lib/*"]) == 0
    assert not (site / "nvidia/nccl").exists()
    assert not (site / "nvidia_nccl_cu12-2.21.5.dist-info").exists()
    assert (site / "nvidia/__init__.py").exists()
    (gone,) = stand_ins_of(site).gone
    assert (gone.file, gone.distribution) == ("nvidia/nccl/lib/libnccl.so.2", "nvidia-nccl-cu12")
    assert (site / WHERE).stat().st_size > 0


def test_compiled_modules_go_with_theirs(site: Path) -> None:
    cache = site / "nvidia/cufft/__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"x")
    main([str(site), *MADE])
    assert not cache.exists()


def test_no_file_outside_is_touched(site: Path) -> None:
    outside = site.parent / "bin" / "tool"
    outside.parent.mkdir()
    outside.write_text("#!")
    wheel(site, "nvidia_b-1", {"nvidia/b/lib/libcufft.so.11": (site / WHERE).read_bytes()}, extra=("../bin/tool,,",))
    assert main([str(site), *MADE]) == 0
    assert outside.exists()
    assert not (site / "nvidia_b-1.dist-info").exists()


def test_twice_gives_the_same_bytes(site: Path, tmp_path: Path, real: bytes) -> None:
    other = tmp_path / "elsewhere" / "deeper" / "site-packages"
    site_packages.cufft_wheel(other, real)
    wheel(other, "nvidia_nccl_cu12-2.21.5", {"nvidia/__init__.py": b"", "nvidia/nccl/lib/libnccl.so.2": real})
    main([str(site), *MADE])
    main([str(other), *MADE])
    assert tree(site) == tree(other)
    assert str(tmp_path).encode() not in b"".join(tree(site).values())


def test_mode_and_links_stay(site: Path) -> None:
    (site / WHERE).chmod(0o755)
    link = site / "nvidia/cufft/lib/libcufft.so.11.2"
    link.symlink_to("libcufft.so.11")
    assert main([str(site), *MADE]) == 0
    assert (site / WHERE).stat().st_mode & 0o7777 == 0o755
    assert link.readlink() == Path("libcufft.so.11")
    assert len(stand_ins_of(site).stand_ins) == 1
    assert (site / OURS).stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in nonempty((site / OURS).iterdir())} == {0o644}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(site: Path) -> None:
    os.chown(site / WHERE, 12, 34)
    main([str(site), *MADE])
    assert ((site / WHERE).stat().st_uid, (site / WHERE).stat().st_gid) == (12, 34)


def _cut(site: Path) -> None:
    (site / WHERE).write_bytes((site / WHERE).read_bytes()[:4000])


def _none(site: Path) -> None:
    (site / WHERE).write_text("text")


def _empty(site: Path) -> None:
    (site / WHERE).write_bytes(b"")


def _unknown(site: Path) -> None:
    compiled(site / "nvidia/cufft/lib/libcufft.so.12", "int cutlassX(void) { return 1; }", soname="libcutlass.so.1")


def _unversioned_data(site: Path) -> None:
    compiled(site / "nvidia/cufft/lib/libcufft.so.12", "int cufftX(void) { return 1; } int cufftT[4] = {1};")


def _outside(site: Path) -> None:
    (site.parent / "libcufft.so.11").write_bytes((site / WHERE).read_bytes())
    (site / "nvidia/cufft/lib/libcufft.so.12").symlink_to(site.parent / "libcufft.so.11")


def _broken_record(site: Path) -> None:
    (site / "nvidia_nccl_cu12-2.21.5.dist-info/RECORD").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut, f"{WHERE}: "),
        (_none, f"{WHERE}: it is no shared library"),
        (_empty, f"{WHERE}: it is no shared library"),
        (_unknown, 'no status for "not supported" is known of libcutlass.so.1'),
        (_unversioned_data, "libcufft.so.12: it exports data without a version, cufftT"),
        (_outside, "leads to no regular file below"),
        (_broken_record, "is no text in UTF-8"),
    ],
)
def test_what_hinders_it_changes_nothing(
    site: Path, damage: object, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    damage(site)
    before = tree(site)
    assert main([str(site), *MADE]) == 1
    assert says in capsys.readouterr().err
    assert tree(site) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--made", "nvidia/*/libnothing.so.*=x"], "matches 'nvidia/*/libnothing.so.*'"),
        (["--gone", "nvidia/*/libnothing.so.*"], "matches 'nvidia/*/libnothing.so.*'"),
        (["--made", "*libcufft*=x", "--gone", "nvidia/cufft/lib/*"], "is named twice, by 'nvidia/cufft/lib/*'"),
        (["--made", "*libcufft*=" + "x" * 201], "one line of at most 200 letters"),
        (["--made", "*libcufft*=a\nb"], "one line of at most 200 letters"),
    ],
)
def test_wishes_that_cannot_be_met_are_named(
    site: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(site)
    assert main([str(site), "--version", "0.1.0", *words]) == 1
    assert says in capsys.readouterr().err
    assert tree(site) == before


def test_a_second_time_is_refused(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(site), *MADE]) == 0
    before = tree(site)
    assert main([str(site), *MADE]) == 1
    assert "has stand-ins already" in capsys.readouterr().err
    assert tree(site) == before


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--list", *MADE],
        ["--made", "*=x"],
        ["--version", "../x", "--made", "*=x"],
        ["--version", "1", "--made", "glob"],
        ["--version", "1", "--made", "=x"],
        ["--version", "1"],
    ],
)
def test_words_it_does_not_know_are_refused(site: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(site), *words])
    assert ended.value.code == 2


def test_without_gcc_it_says_what_to_install(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("images.device_code.stand_ins.compiler.PROGRAM", "gcc-that-is-not-there")
    assert main([str(site), *MADE]) == 1
    assert "install gcc and libc6-dev" in capsys.readouterr().err
    assert json.loads(dumps(stand_ins_of(site)))["stand_ins"] == []
