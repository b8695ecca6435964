"""`bench oracle`: what counts as agreeing, what as differing and why, with a stand-in for cuobjdump."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from bench.oracle import VARIABLE, by_us, measure, measure_wheel
from images.core import UsageError
from images.device_code.fatbin import read
from tests.helpers.elf_files import PTX, A, Code, F, container, cubin, library, sm

BIG = container(Code(75, size=9000), Code(86, size=9000), Code(90, kind=PTX, size=800))


def stand_in(folder: Path, script: str) -> Path:
    """A program that is called as cuobjdump is: the file is its last word."""
    path = folder / "cuobjdump"
    path.write_text(f"#!/bin/sh\nfor file; do :; done\n{script}\n")
    path.chmod(0o755)
    return path


def wheel(folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / "pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def scratch(folder: Path) -> Path:
    (folder / "scratch").mkdir()
    return folder / "scratch"


# A library of some size lists both architectures and the PTX; the slimmed one is smaller and lists what stays.
LISTS = """size=$(wc -c <"$file")
if [ "$size" -gt 30000 ]; then
    echo "ELF file    1: lib.1.sm_75.cubin"; echo "PTX file    1: lib.1.sm_90.ptx"
fi
echo "ELF file    2: lib.2.sm_86.cubin"
"""


def test_files_that_list_the_same_as_they_came_and_slimmed_agree(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"pkg/lib.so": library([BIG], tail=b"t" * 10000), "pkg/notes.txt": b"-"})
    found = measure_wheel(stand_in(tmp_path, LISTS), path, scratch(tmp_path))
    assert (found.agree, found.files, found.entries, found.slimmed) == (1, 1, 3, 1)
    assert found.text == "pkg-1.0: 3 entries, 1 files slimmed for 8.6 and listed again"


@pytest.mark.parametrize(
    ("files", "script", "why"),
    [
        ({"lib.so": library([BIG])}, "echo 'ELF file 1: lib.1.sm_75.cubin'", "ours {"),
        ({"lib.so": library([BIG])}, "echo 'Invalid ELF' >&2", "stops in the middle"),
        ({"lib.so": library(tail=cubin(75))}, ":", "does not look into .rodata, where 1 entries are"),
        ({"lib.so": library([BIG])[:-64]}, ":", "not read: "),
    ],
)
def test_what_differs_is_told_with_the_reason(tmp_path: Path, files: dict[str, bytes], script: str, why: str) -> None:
    found = measure_wheel(stand_in(tmp_path, script), wheel(tmp_path, files), scratch(tmp_path))
    assert (found.agree, found.files) == (0, 1)
    assert why in found.text


def test_cuobjdump_names_no_family_for_machine_code() -> None:
    code = container(Code(100, flags=F), Code(90, flags=A), Code(100, kind=PTX, flags=F))
    assert by_us(read(library([code, sm(90)]))) == {
        ("ELF", 100, ""): 1,
        ("ELF", 90, "a"): 1,
        ("ELF", 90, ""): 1,
        ("PTX", 100, "f"): 1,
    }


def test_the_wheels_of_a_folder_are_taken_where_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path, {"pkg/lib.so": library([BIG], tail=b"t" * 10000)})
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr("bench.oracle.cuobjdump", lambda: stand_in(tmp_path, LISTS))
    (row,) = measure()
    assert (row.ours, row.peer, row.unit) == (1, 1, "files")
    monkeypatch.setattr("bench.oracle.cuobjdump", lambda: None)
    with pytest.raises(UsageError, match="bench oracle needs"):
        list(measure())
