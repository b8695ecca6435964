"""Packages that no server imports go whole, and nothing of another package does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from images.device_code.distributions import normal
from images.device_code.record import RecordError
from images.device_code.unused_packages import drop_packages, main


def install(site: Path, wheel: str, files: Sequence[str], *, rows: Sequence[str] = ()) -> None:
    """Files of eight bytes with what Python compiled of them, and the dist-info that says so; ``rows`` go on top."""
    info = f"{wheel}.dist-info"
    for name in (*files, f"{info}/METADATA"):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(8))
        if path.suffix == ".py":
            (path.parent / "__pycache__").mkdir(exist_ok=True)
            (path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc").write_bytes(bytes(4))
    listed = (*files, *rows, f"{info}/METADATA", f"{info}/RECORD")
    (site / info / "RECORD").write_text("".join(f"{name},,\n" for name in listed))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An environment with three packages; two of them share a folder, and one file."""
    site = tmp_path / "venv/lib/python3.11/site-packages"
    install(site, "opencv_python-4.1", ["cv2/__init__.py", "cv2/cv2.so", "../../../bin/cv", "shared/__init__.py"])
    install(site, "Some.Other-2", ["shared/__init__.py", "shared/own.py", "other.py"])
    install(site, "third-3", ["third.py", "third_more.py"])
    return site


def left(site: Path) -> list[str]:
    root = site.parents[2]
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def held(site: Path) -> int:
    """The bytes of all files of the environment."""
    return sum((site.parents[2] / name).stat().st_size for name in left(site))


def test_a_package_goes_with_its_script_its_bytecode_and_its_metadata(site: Path) -> None:
    before = held(site)
    assert drop_packages(site, ["opencv-python"]) == before - held(site) > 0
    assert not [name for name in left(site) if "cv" in name]
    assert not (site / "cv2").exists()
    assert (site / "shared/__init__.py").exists()  # Some.Other has it too
    assert (site / "shared/__pycache__/__init__.cpython-311.pyc").exists()


def test_the_others_stay_as_they_are(site: Path) -> None:
    before = [name for name in left(site) if "cv" not in name]
    drop_packages(site, ["opencv-python"])
    assert left(site) == before
    drop_packages(site, ["third", "some-other", "third"])
    assert left(site) == []


def test_of_two_names_that_begin_alike_one_goes(site: Path) -> None:
    install(site, "fourth-4", ["third.py.txt", "thirdly.py"])
    drop_packages(site, ["third"])
    assert (site / "thirdly.py").exists()
    assert (site / "__pycache__/thirdly.cpython-311.pyc").exists()
    assert not (site / "__pycache__/third.cpython-311.pyc").exists()


def test_a_name_that_is_not_installed_is_told_and_nothing_goes(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = left(site)
    with pytest.raises(LookupError, match="not installed: fifth, sixth"):
        drop_packages(site, ["third", "sixth", "fifth"])
    assert main([str(site), "--package", "third", "--package", "fifth"]) == 1
    assert "not installed: fifth; see the section `unused` of matrix.yaml" in capsys.readouterr().err
    assert left(site) == before


def test_a_record_that_points_out_of_the_environment_is_refused(site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    install(site, "bad-1", ["bad.py"], rows=["../../../../outside"])
    with pytest.raises(RecordError, match="outside is not below"):
        drop_packages(site, ["bad"])
    assert outside.exists() and (site / "bad.py").exists()


def test_a_file_that_is_gone_already_is_no_fault(site: Path) -> None:
    (site / "cv2/cv2.so").unlink()
    assert drop_packages(site, ["opencv-python"]) > 0
    assert drop_packages(site, []) == 0


def test_globs_go_with_their_rows(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(site), "--file", "third_*.py", "--file", "nothing/*", "--package", "some-other"]) == 0
    assert "1 packages and 2 globs dropped" in capsys.readouterr().out
    assert (site / "third.py").exists() and not (site / "third_more.py").exists()
    assert "third_more" not in (site / "third-3.dist-info/RECORD").read_text()
    assert not (site / "other.py").exists()


@pytest.mark.parametrize("words", [[], ["SITE", "--package"], ["SITE", "--glob", "x"]])
def test_words_that_are_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "python -m images.device_code.unused_packages SITE" in capsys.readouterr().err


def test_names_as_indexes_compare_them() -> None:
    assert normal("Ruamel.YAML__x") == "ruamel-yaml-x"
