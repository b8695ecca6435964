"""What a library asks of the loader and offers it: against a compiler's products, and damaged in every place."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.device_code.dynamic import Dynamic, Kind, Symbol, read_dynamic
from images.device_code.elf import FatbinError
from tests.helpers.compiled import compiled
from tests.helpers.nonempty import nonempty

SOURCE = """
#include <stdlib.h>
int other(void);
__attribute__((weak)) int maybe(void);
int old(void) { return 1; }
int new(void) { return 2; }
__asm__(".symver old,both@FIRST");
__asm__(".symver new,both@@SECOND");
int plain(void) { return other() + (maybe ? maybe() : 0); }
__attribute__((weak)) int soft(void) { return 3; }
int table[4] = {1, 2, 3, 4};
__thread int each;
__attribute__((visibility("hidden"))) int inner(void) { return 5; }
static int local(void) { return 6; }
int held(void) { return inner() + local() + each + (getenv("X") != 0); }
"""
VERSIONS = "FIRST { }; SECOND { global: both; plain; soft; table; each; held; local: *; } FIRST;"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("dynamic")
    wanted = compiled(folder / "libother.so.3", "int other(void) { return 7; }", versions="OTHER_1 { global: *; };")
    made = compiled(
        folder / "libthis.so.1.2",
        SOURCE,
        str(wanted),
        "-Wl,-rpath,$ORIGIN:/opt/lib",
        soname="libthis.so.1",
        versions=VERSIONS,
    )
    return made.read_bytes()


def read(content: bytes) -> Dynamic:
    found = read_dynamic(content)
    assert found is not None
    return found


def test_names_and_versions(content: bytes) -> None:
    found = read(content)
    assert found.soname == "libthis.so.1"
    assert found.needed[:2] == ("libother.so.3", "libc.so.6")
    assert found.rpath + found.runpath == ("$ORIGIN", "/opt/lib")
    assert found.versions == ("FIRST", "SECOND")
    assert dict(found.needs)["libother.so.3"] == ("OTHER_1",)


def test_symbols(content: bytes) -> None:
    found = read(content)
    offered = {(one.name, one.version): one for one in found.exports}
    assert {name for name, _ in offered} == {"both", "plain", "soft", "table", "each", "held"}
    assert not offered["both", "FIRST"].default
    assert offered["both", "SECOND"].default
    assert offered["soft", "SECOND"].weak
    assert not offered["plain", "SECOND"].weak
    assert (offered["table", "SECOND"].kind, offered["table", "SECOND"].size) == (Kind.DATA, 16)
    assert offered["each", "SECOND"].kind is Kind.THREAD
    assert offered["plain", "SECOND"].kind is Kind.FUNCTION
    wanted = {one.name: one for one in found.wants}
    assert wanted["other"] == Symbol(
        "other", "OTHER_1", "libother.so.3", False, False, False, True, wanted["other"].kind, 0
    )
    assert wanted["maybe"].weak
    assert wanted["maybe"].version == wanted["maybe"].library == ""
    assert wanted["getenv"].library == "libc.so.6"
    assert not {one.name for one in found.symbols} & {"inner", "local"}


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_without_the_table_of_sections(tmp_path: Path, style: str) -> None:
    path = compiled(tmp_path / "libx.so", SOURCE, f"-Wl,--hash-style={style}", versions=VERSIONS, soname="libx.so.1")
    content = path.read_bytes()
    bare = bytearray(content)
    bare[40:48], bare[60:64] = bytes(8), bytes(4)
    assert read(bytes(bare)) == read(content)


def test_a_library_that_offers_nothing(tmp_path: Path) -> None:
    code = "int other(void); static int f(void) { return other(); } __attribute__((constructor)) void g(void) { f(); }"
    content = compiled(tmp_path / "libx.so", code, versions="V { local: *; };").read_bytes()
    bare = bytearray(content)
    bare[40:48], bare[60:64] = bytes(8), bytes(4)
    assert read(bytes(bare)) == read(content)
    assert "other" in {one.name for one in read(bytes(bare)).wants}
    assert read(content).exports == ()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"text" * 100, b"\x7fELF\x02\x01" + bytes(58)])
def test_no_dynamic_segment(content: bytes) -> None:
    assert read_dynamic(content) is None


def test_every_cut_is_named(content: bytes) -> None:
    """The tables lie in the first segment: of a file that ends before they do, nothing is read."""
    last = max(content.find(one.name.encode()) for one in nonempty(read(content).symbols))
    for size in nonempty(range(64, last, 61)):
        with pytest.raises(FatbinError):
            read_dynamic(content[:size])


def entries(content: bytes) -> dict[int, int]:
    """Tag -> place of its entry in the dynamic segment."""
    phoff, phnum = struct.unpack_from("<Q", content, 32)[0], struct.unpack_from("<H", content, 56)[0]
    for at in range(phoff, phoff + 56 * phnum, 56):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", content, at)
        if kind == 2:
            places = range(offset, offset + size, 16)
            return {struct.unpack_from("<Q", content, one)[0]: one for one in reversed(places)}
    raise AssertionError("no dynamic segment")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (5, 1 << 40),  # STRTAB
        (6, 1 << 63),  # SYMTAB
        (10, 1 << 40),  # STRSZ
        (10, 1),
        (11, 16),  # SYMENT
        (14, 1 << 33),  # SONAME
        (1, (1 << 64) - 1),  # NEEDED
        (0x6FFFFFF0, 1 << 40),  # VERSYM
        (0x6FFFFFFC, 1 << 40),  # VERDEF
        (0x6FFFFFFD, 1 << 40),
        (0x6FFFFFFE, 1 << 40),  # VERNEED
        (0x6FFFFFFF, 1 << 40),
    ],
)
def test_a_tag_that_leads_nowhere(content: bytes, tag: int, value: int) -> None:
    broken = bytearray(content)
    struct.pack_into("<Q", broken, entries(content)[tag] + 8, value)
    with pytest.raises(FatbinError):
        read_dynamic(bytes(broken))


@pytest.mark.parametrize("tag", [4, 0x6FFFFEF5])
@pytest.mark.parametrize("value", [0, 1 << 40])
def test_a_hash_table_that_is_none(tmp_path: Path, tag: int, value: int) -> None:
    style = {4: "sysv"}.get(tag, "gnu")
    path = compiled(tmp_path / "libx.so", SOURCE, f"-Wl,--hash-style={style}", versions=VERSIONS)
    broken = bytearray(path.read_bytes())
    broken[40:48], broken[60:64] = bytes(8), bytes(4)
    struct.pack_into("<Q", broken, entries(bytes(broken))[tag] + 8, value)
    with pytest.raises(FatbinError):
        read_dynamic(bytes(broken))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_named_or_harmless(content: bytes, data: st.DataObject) -> None:
    broken = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(6, len(broken) - 9))
        change = data.draw(st.binary(min_size=1, max_size=8))
        broken[place : place + len(change)] = change
    try:
        found = read_dynamic(bytes(broken))
    except FatbinError:
        return
    assert found is None or all(len(one.name) < len(broken) for one in found.symbols)
