"""The reader of device code: what it finds in libraries written here, and what it says of broken ones."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.device_code.elf import FatbinError, find_sections
from images.device_code.fatbin import OTHER, PTX, SASS, read
from tests.helpers import fuzz_fatbin
from tests.helpers.elf_files import LZ4, ZSTD, A, Code, F, container, library, sm
from tests.helpers.nonempty import nonempty


def test_containers_and_entries_with_their_places() -> None:
    data = library([sm(75, 80), sm(75)], pad=100)
    found = read(data)
    assert [[entry.arch for entry in one.entries] for one in found.containers] == [[75, 80], [75]]
    section = found.sections[0]
    assert data[section.offset : section.offset + 4] == struct.pack("<I", 0xBA55ED50)
    for one in found.containers:
        assert struct.unpack_from("<I", data, one.offset) == (0xBA55ED50,)
        assert struct.unpack_from("<Q", data, one.offset + 8) == (one.size,)
        assert one.entries[-1].end == one.end
        assert one.address - one.offset == section.address - section.offset
    assert found.wrappers is not None
    assert found.wrappers.size == 48
    assert found.wrappers.address == found.wrappers.offset + 0x1000
    assert struct.unpack_from("<I", data, found.wrappers.offset) == (0x466243B1,)


def test_what_a_header_tells() -> None:
    codes = [
        Code(90, flags=A | LZ4),
        Code(100, flags=F | ZSTD, header=112),
        Code(80, 1, header=88, version=(8, 4)),
        Code(80, 0x10, size=0),
    ]
    result = [
        (e.kind, e.arch, e.suffix, e.compression, e.header_size) for e in read(library([container(*codes)])).entries
    ]
    assert result == [
        (SASS, 90, "a", "lz4", 72),
        (SASS, 100, "f", "zstd", 112),
        (PTX, 80, "", "", 88),
        (OTHER, 80, "", "", 72),
    ]
    assert read(library([container(*codes)])).entries[2].version == (8, 4)


def test_real_headers() -> None:
    found = read(library([fuzz_fatbin.real_container(fuzz_fatbin.REAL_HEADERS, 8)]))
    result = [f"{e.kind} {e.arch}{e.suffix} {e.compression}" for e in found.entries]
    assert result == [
        "SASS 70 ",
        "SASS 70 lz4",
        "SASS 90a ",
        "PTX 52 lz4",
        "SASS 50 lz4",
        "SASS 100f lz4",
        "PTX 100 lz4",
        "SASS 75 zstd",
        "SASS 100a zstd",
        "PTX 120 zstd",
    ]
    assert [e.version for e in found.entries if e.kind == PTX] == [(8, 4), (8, 8), (9, 0)]


def test_a_path_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    data = library([sm(75)])
    (tmp_path / "lib.so").write_bytes(data)
    assert read(tmp_path / "lib.so") == read(str(tmp_path / "lib.so")) == read(data) == read(memoryview(data))


def test_relocatable_code_counts_only_where_nothing_is_linked() -> None:
    alone = read(library([sm(75)], section="__nv_relfatbin"))
    assert [section.name for section in alone.sections] == ["__nv_relfatbin"]
    assert len(alone.loadable) == 1


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 20, b"\x7fELF\x01\x01" + bytes(200)])
def test_no_elf_has_no_device_code(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    for found in (read(data), read(tmp_path / "file")):
        assert (found.elf, found.sections, found.size) == (False, (), len(data))


def test_a_library_without_device_code_is_told_from_no_library() -> None:
    found = read(library())
    assert (found.elf, found.sections, found.wrappers) == (True, (), None)


def test_an_empty_section_and_one_of_padding_hold_nothing() -> None:
    assert read(library(body=b"")).containers == ()
    assert read(library(body=bytes(10_000))).containers == ()


def broken(at: int, form: str, value: int) -> tuple[bytes, int]:
    """A library of one container with a number changed ``at`` bytes into it; and the container's offset."""
    data = bytearray(library([sm(75, 80)]))
    start = read(bytes(data)).containers[0].offset
    struct.pack_into(form, data, start + at, value)
    return bytes(data), start


@pytest.mark.parametrize(
    ("at", "form", "value", "where", "words"),
    [
        (0, "<I", 0x12345678, 0, "a container (0xba55ed50) expected, not 0x12345678"),
        (4, "<H", 2, 4, "version 1, header 16 expected, not 2, 16"),
        (8, "<Q", 1 << 40, 8, "a payload of at most"),
        (8, "<Q", (1 << 64) - 1, 8, "a payload of at most"),
        (8, "<Q", 20, 16, "an entry header of 64 bytes expected, 20 are left"),
        (20, "<I", 8, 20, "an entry header of 64 to"),
        (20, "<I", 0xFFFFFFFF, 20, "an entry header of 64 to"),
        (24, "<Q", 1 << 63, 24, "a payload of at most"),
    ],
)
def test_a_broken_header_is_told_with_its_offset(at: int, form: str, value: int, where: int, words: str) -> None:
    data, start = broken(at, form, value)
    with pytest.raises(FatbinError) as caught:
        read(data)
    assert caught.value.offset == start + where
    assert words in str(caught.value)
    assert f"{start + where:#x}" in str(caught.value)


def test_every_cut_is_an_error_or_ends_behind_the_last_header() -> None:
    data = library([sm(75), sm(80)])
    for size in nonempty(range(64, len(data))):
        with pytest.raises(FatbinError) as caught:
            read(data[:size])
        assert 0 <= caught.value.offset <= len(data)


def test_many_sections_over_the_same_bytes_are_refused() -> None:
    data = bytearray(library([sm(75)]))
    shoff = int.from_bytes(data[40:48], "little")
    data[shoff + 64 : shoff + 128] = data[shoff + 128 : shoff + 192]  # .rela.dyn becomes a second .nv_fatbin
    with pytest.raises(FatbinError, match=r"expected behind"):
        read(bytes(data))


def test_more_entries_than_any_library_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.device_code.fatbin.MOST_ENTRIES", 3)
    assert len(read(library([sm(75, 80, 90)])).entries) == 3
    with pytest.raises(FatbinError, match="fewer entries"):
        read(library([sm(75, 80), sm(75, 80)]))


def test_sections_without_bytes_in_the_file_are_left_out() -> None:
    data = bytearray(library([sm(75)]))
    shoff = int.from_bytes(data[40:48], "little")
    struct.pack_into("<I", data, shoff + 2 * 64 + 4, 8)
    assert find_sections(bytes(data), [".nv_fatbin"]) == ()


@settings(max_examples=300)
@given(st.integers(0, 1 << 32))
def test_mutated_libraries_are_read_or_refused(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    for start in nonempty(fuzz_fatbin.samples()):
        assert fuzz_fatbin.execute(fuzz_fatbin.mutated(start, chance)) in ("read", "refused", "no device code")


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_as_a_section_are_read_or_refused(body: bytes) -> None:
    assert fuzz_fatbin.execute(library(body=body)) in ("read", "refused", "no device code")
    with_magic = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
    assert fuzz_fatbin.execute(library(body=with_magic)) in ("read", "refused", "no device code")
