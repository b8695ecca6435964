"""Every file of an image is one distribution's, Debian's or of a folder, and each is packed by itself."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.packages import Export, Weight, largest, rows_of, weigh
from images.core.errors import CardstockError

SITE = "opt/venv/lib/python3.11/site-packages"
FILES = {
    "bin": None,
    f"{SITE}/a/__init__.py": b"a" * 10,
    f"{SITE}/a/__pycache__/__init__.cpython-311.pyc": b"a" * 20,
    f"{SITE}/a_b-1.0.dist-info/RECORD": b"a/__init__.py,,\na_b-1.0.dist-info/RECORD,,\n../../../bin/tool,,\n",
    f"{SITE}/loose/x.bin": b"x" * 5,
    "opt/venv/bin/tool": b"t" * 7,
    "opt/cardstock/server.py": b"s" * 11,
    "usr/bin/gcc": b"g" * 13,
    "usr/lib/python3.11/os.py": b"p" * 17,
    "var/lib/dpkg/info/gcc-12:amd64.list": b"/.\n/bin/gcc\n",
    "var/lib/dpkg/info/libpython3.11-minimal.list": b"/usr/lib/python3.11/os.py\n",
}


def export(files: dict[str, bytes | None], lead: str = "") -> Export:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(lead + name)
            entry.type = tarfile.REGTYPE if content is not None else tarfile.DIRTYPE
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))

    @contextmanager
    def chunks() -> Iterator[Iterator[bytes]]:
        yield iter([packed.getvalue()])

    return chunks


def halved(file: Path) -> int:
    return file.stat().st_size // 2


@pytest.mark.parametrize("lead", ["", "/"])
def test_each_file_has_one_owner(lead: str) -> None:
    weights = weigh(export(FILES, lead), halved)
    record = len(FILES[f"{SITE}/a_b-1.0.dist-info/RECORD"] or b"")
    assert {name: (one.files, one.unpacked) for name, one in weights.items()} == {
        "a_b": (4, 10 + 20 + 7 + record),
        f"of no package: /{SITE}/loose": (1, 5),
        "this project's rootfs": (1, 11),
        "Debian: gcc-12": (1, 13),
        "Debian's Python: libpython3.11-minimal": (1, 17),
        "of no package: /var/lib": (2, 12 + 26),
    }
    assert all(one.zstd > 0 for one in weights.values())


def test_a_list_that_no_package_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.packages._BYTES_OF_A_LIST", 10)
    with pytest.raises(CardstockError, match="no list of a package"):
        weigh(export(FILES), halved)


def test_the_largest_come_first_and_the_others_are_one_sum() -> None:
    weights = {"a": Weight(1, 10, 3), "b": Weight(1, 20, 9), "c": Weight(2, 30, 1)}
    assert largest(weights, 1) == [("b", Weight(1, 20, 9)), ("the other 2", Weight(3, 40, 4))]
    assert [name for name, _ in largest(weights, 3)] == ["b", "a", "c"]
    rows = list(rows_of("v", "v@1", weights, 1))
    assert [(row.measures, row.ours, row.peer) for row in rows[:2]] == [
        ("v: all, each packed by itself", 13 / 1e6, 60 / 1e6),
        ("v: b", 9 / 1e6, 20 / 1e6),
    ]
