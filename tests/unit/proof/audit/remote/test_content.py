"""A file of which parts are fetched is judged as its whole is, damaged ones too; and not much of it is fetched."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from images.device_code.elf import FatbinError
from images.device_code.fatbin import read
from images.proof.audit.remote.content import Reader
from images.proof.audit.remote.faults import LayerFault
from images.proof.audit.remote.layer import Finding
from tests.helpers.elf_files import Code, container, library, sm
from tests.helpers.fuzz_fatbin import mutated, samples
from tests.helpers.nonempty import nonempty


class Fetched:
    """Bytes in parts; ``seen`` counts those that were asked for."""

    def __init__(self, data: bytes) -> None:
        self._data, self.seen = data, 0

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, begin: int, length: int) -> bytes:
        assert begin >= 0 and begin + length <= len(self._data)
        self.seen += length
        return self._data[begin : begin + length]


@pytest.fixture
def reader() -> Iterator[Reader]:
    with closing(Reader()) as made:
        yield made


def told(found: Finding | None) -> object:
    return f"{type(found).__name__} {found}" if isinstance(found, FatbinError) else found


def whole(data: bytes, name: str) -> object:
    try:
        found = read(data, name)
    except FatbinError as error:
        return told(error)
    return found if found.form else None


def test_mutated_libraries_are_judged_alike(reader: Reader) -> None:
    chance = random.Random(20261128)  # noqa: S311  (the same each time)
    seen = set()
    for data in nonempty([*samples(), *(mutated(chance.choice(samples()), chance) for _ in range(1500))]):
        if len(data) < 64:
            continue
        expected = whole(data, "lib.so")
        assert told(reader.parts("lib.so", Fetched(data))) == expected
        streamed = reader.stream("lib.so", data[:64], io.BytesIO(data[64:]), len(data))
        assert data[:4] != b"\x7fELF" or told(streamed) == expected
        seen.add(type(expected).__name__)
    assert seen == {"Library", "str", "NoneType"}


PTX = b"//\n.version 8.4\n.target sm_80\n" + b" " * 100


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.ptx", PTX),
        ("a.ptx", b"x" * 100),
        ("a.cubin", b"x" * 100),
        ("a.fatbin", container(Code(75)).ljust(200, b"\0")),
        ("a.a", b"!<arch>\n" + b"a.o/".ljust(48) + b"100".ljust(10) + b"`\n" + bytes(100)),
        ("a.exe", b"MZ" + bytes(200)),
        ("a.so", b"\x7fELF\x01\x01" + bytes(100)),
        ("a.so", b"\x7fELF\x02\x01" + bytes(100)),
        ("a.txt", library([sm(75)])),
        ("a.so", b"no library".ljust(100)),
    ],
)
def test_other_files_are_judged_alike(reader: Reader, name: str, data: bytes) -> None:
    expected = whole(data, name) if not name.endswith(".txt") else None
    assert told(reader.parts(name, Fetched(data))) == expected


def test_of_a_large_library_headers_and_data_are_fetched(reader: Reader) -> None:
    parts = [container(Code(75, size=1 << 20), Code(80, size=1 << 20)) for _ in range(4)]
    data = library(parts, tail=b"data" * 1000)
    fetched = Fetched(data)
    assert reader.parts("lib.so", fetched) == read(data)
    assert fetched.seen < len(data) // 50


def test_files_of_all_sizes_go_through_one_temporary_file(reader: Reader) -> None:
    large = library([sm(75)], tail=b"data" * (2 << 20))
    small = library([sm(80)])
    for data in (large, small, large):
        assert reader.stream("lib.so", data[:64], io.BytesIO(data[64:]), len(data)) == read(data)
        assert reader.parts("lib.so", Fetched(data)) == read(data)


def test_a_file_that_ends_early_is_no_library(reader: Reader) -> None:
    for data in (library([sm(80)]), library([sm(75)], tail=b"data" * (2 << 20))):
        with pytest.raises(LayerFault, match="cut short"):
            reader.stream("lib.so", data[:64], io.BytesIO(data[64:-1]), len(data))


def test_a_file_beyond_the_bounds_is_not_read(reader: Reader) -> None:
    class Huge(Fetched):
        @property
        def size(self) -> int:
            return 1 << 45

    with pytest.raises(LayerFault, match="no library is as large"):
        reader.parts("lib.so", Huge(b""))
    with pytest.raises(LayerFault, match="no library is as large"):
        reader.stream("lib.so", b"\x7fELF", io.BytesIO(), 1 << 45)


def test_the_temporary_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(Reader()):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
