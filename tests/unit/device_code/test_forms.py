"""Device code wherever it stands: cubins, fat binaries, PTX, archives, a library's data, what a linker made."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.device_code.audit import Audit, Audited, audit, cell, summarise, table
from images.device_code.elf import FatbinError, UnknownForm
from images.device_code.fatbin import Library, read
from images.device_code.model import Container, Entry, Section
from images.device_code.names import shown
from images.device_code.verdict import judge, parse_capability
from tests.helpers.elf_files import PTX, Code, container, cubin, library, linked_library, ptx_text, sm
from tests.helpers.nonempty import nonempty


def kinds(found: Library, *cards: str) -> list[str]:
    return [judge(found, parse_capability(card)).kind for card in cards]


def archive(*members: tuple[str, bytes]) -> bytes:
    """As `ar` writes it: a table of symbols, one of long names, the members."""
    names = b"".join(name.encode() + b"/\n" for name, _ in members)
    out = b"!<arch>\n"
    at = 0
    for name, content in [("/", b"\0\0\0\0"), ("//", names), *members]:
        told = name if name in ("/", "//") else f"/{at}"
        at += 0 if name in ("/", "//") else len(name) + 2
        out += f"{told:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode() + content
        out += b"\n" * (len(content) % 2)
    return out


@pytest.mark.parametrize(
    ("arch", "suffix", "verdicts"),
    [
        (75, "", ["native", "none", "none"]),
        (90, "a", ["none", "native", "none"]),
        (100, "", ["none", "none", "lower minor"]),
        (100, "a", ["none", "none", "none"]),
        (103, "a", ["none", "none", "native"]),
    ],
)
def test_a_cubin_is_for_the_card_of_its_header(arch: int, suffix: str, verdicts: list[str]) -> None:
    found = read(cubin(arch, suffix), "k.cubin")
    assert found.form == "cubin"
    assert kinds(found, "7.5", "9.0", "10.3") == verdicts


def test_an_old_cubin_is_for_no_card_alone() -> None:
    content = bytearray(cubin(60))
    struct.pack_into("<I", content, 48, 0x3C083C | 0x800)
    assert kinds(read(bytes(content), "k.cubin"), "6.0", "6.1") == ["native", "lower minor"]


def test_a_fat_binary_alone() -> None:
    found = read(container(Code(80), Code(90, kind=PTX)) + container(Code(80)), "k.fatbin")
    assert (found.form, len(found.loadable)) == ("fatbin", 2)
    assert kinds(found, "8.0", "8.6", "9.0") == ["native", "lower minor", "partly"]


@pytest.mark.parametrize(
    ("target", "verdicts"),
    [
        ("sm_70", ["ptx", "ptx", "ptx"]),
        ("sm_90a", ["none", "ptx", "none"]),
        ("sm_100f, texmode_independent", ["none", "none", "ptx"]),
    ],
)
def test_ptx_as_text(target: str, verdicts: list[str]) -> None:
    found = read(ptx_text(target, "8.6"), "k.ptx")
    assert kinds(found, "7.5", "9.0", "10.3") == verdicts
    assert judge(read(ptx_text("sm_50", "8.6"), "k.ptx"), (9, 0)).driver == "driver 565 (CUDA 12.7)"


@pytest.mark.parametrize("name", ["k.ptx", "k.cubin", "k.fatbin", "K.CUBIN"])
def test_what_is_device_code_by_its_name_alone_is_unknown_and_not_none(name: str) -> None:
    with pytest.raises(UnknownForm):
        read(b"(packed)" * 20, name)
    found = audit("x", [(name, UnknownForm("a form that is not known", 0))])
    assert summarise(found, (7, 5)) == "unknown"
    assert found.failing([(7, 5)])


@pytest.mark.parametrize("size", [5, 30, 51, 60, 300, 3000])
def test_a_library_that_is_cut_short_is_damaged(size: int) -> None:
    with pytest.raises(FatbinError):
        read(library([sm(75)], tail=b"t" * 3000)[:size], "lib.so")


def test_code_for_linking_is_unknown() -> None:
    with pytest.raises(UnknownForm, match="LTO"):
        read(b"\xed\x43\x4e\x7f" + bytes(100), "k.ltoir")
    assert kinds(read(library([container(Code(75, 0x10))])), "7.5", "9.0", "7.0") == ["unknown", "unknown", "none"]


@pytest.mark.parametrize("size", [70, 63, 56, 20])
def test_a_cubin_that_is_cut_short_is_damaged(size: int) -> None:
    content = bytearray(cubin(90))
    struct.pack_into("<Q", content, 40, 64)  # its table of sections
    with pytest.raises(FatbinError):
        read(bytes(content[:size]), "k.cubin")


def test_an_archive_is_what_its_objects_are() -> None:
    members = ("first_with_a_long_name.o", library([sm(75, 80)])), ("b.o", library()), ("c.cubin", cubin(75))
    found = read(archive(*members), "lib.a")
    assert (found.form, len(found.loadable)) == ("archive", 2)
    assert [section.name for section in found.sections] == ["first_with_a_long_name.o", "c.cubin"]
    assert kinds(found, "7.5", "8.0", "9.0") == ["native", "partly", "none"]


@pytest.mark.parametrize("size", [20, 100, -20])
def test_an_archive_that_is_cut_short_is_damaged(size: int) -> None:
    with pytest.raises(FatbinError):
        read(archive(("a.o", library([sm(75)])))[:size], "lib.a")


def test_an_object_in_an_archive_that_cannot_be_read_makes_it_unknown() -> None:
    found = read(archive(("a.o", library([sm(75)])), ("b.o", library([sm(75)])[:-64])), "lib.a")
    assert "b.o" in found.unread
    assert kinds(found, "7.5", "9.0") == ["unknown", "unknown"]


def test_code_in_a_librarys_data_is_found_and_counts_as_one_pool() -> None:
    pool = b"names\0\0\0" + container(Code(75)) + container(Code(90)) + b"\0" * 5 + cubin(100, "a") + b"end"
    found = read(library(tail=pool))
    assert [(section.name, section.pooled, len(section.containers)) for section in found.sections] == [
        (".rodata", True, 3)
    ]
    assert kinds(found, "7.5", "9.0", "10.0", "8.0") == ["native", "native", "native", "none"]
    both = read(library([sm(80)], tail=pool))
    assert kinds(both, "8.0", "7.5") == ["partly", "partly"]


@pytest.mark.parametrize("junk", [b"\x50\xed\x55\xba\x01\x00\x10\x00", b"\x7fELF\x02\x01\x01\x33", b"\x50\xed\x55\xba"])
def test_a_magic_number_alone_is_no_code(junk: bytes) -> None:
    found = read(library(tail=b"compares with " + junk + b"\xff" * 100))
    assert not found.holds_code
    assert kinds(found, "7.5") == ["no device code"]


def test_a_library_that_registers_what_is_not_found_is_unknown() -> None:
    content = library([sm(75)])
    hidden = content.replace(b".nv_fatbin\0", b".nv_hidden\0").replace(
        struct.pack("<IHH", 0xBA55ED50, 1, 16), b"packed!!"
    )
    found = read(hidden)
    assert found.holds_code
    assert kinds(found, "7.5", "9.0") == ["unknown", "unknown"]


def test_a_container_of_another_version_or_a_packed_section_is_unknown_and_not_damaged() -> None:
    content = library([sm(75)])
    for broken in nonempty(
        [content.replace(struct.pack("<IHH", 0xBA55ED50, 1, 16), struct.pack("<IHH", 0xBA55ED50, 2, 16))]
    ):
        with pytest.raises(UnknownForm):
            read(broken)


def test_a_program_of_windows_with_device_code_is_unknown() -> None:
    assert kinds(read(b"MZ" + bytes(100) + container(Code(75)), "x.dll"), "7.5") == ["unknown"]
    assert not read(b"MZ" + bytes(200), "x.dll").holds_code


@pytest.mark.parametrize("relr", [False, True])
def test_linked_code_runs_by_its_parts_ptx_linked_at_load(relr: bool) -> None:
    """bitsandbytes 0.45.5: linked for 5.0 to 9.0, its parts with PTX for 9.0. It runs on 12.0."""
    part = container(Code(80), Code(90, kind=PTX, version=(8, 4)))
    found = read(linked_library(sm(80, 90), [part, part], relr=relr))
    assert kinds(found, "8.0", "8.6", "9.0", "12.0", "7.5") == ["native", "lower minor", "native", "ptx", "none"]
    verdict = judge(found, (12, 0))
    assert cell(verdict) == "ptx, linked at load, driver 550 (CUDA 12.4)"
    assert verdict.covers


def test_linked_code_needs_something_of_every_part() -> None:
    part = container(Code(80), Code(90, kind=PTX))
    assert kinds(read(linked_library(sm(80), [part, sm(80)])), "12.0", "8.6") == ["none", "lower minor"]
    not_linked = read(linked_library(sm(80), [part], version=1))
    assert not_linked.linked == ()
    assert kinds(not_linked, "12.0") == ["none"]


def test_many_files_of_one_folder_that_say_the_same_are_one_row() -> None:
    files = [(f"pkg/cubins/k{number}.cubin", read(cubin(100), "k.cubin")) for number in range(20)]
    files += [("pkg/cubins/one.cubin", read(cubin(90, "a"), "k.cubin"))]
    header, rows = table(audit("x", files), [(9, 0), (10, 0)])
    assert header == ["library", "containers", "holds", "9.0", "10.0"]
    assert rows == [
        ["pkg/cubins/*.cubin (20 files)", "1", "10.0", "none", "native"],
        ["pkg/cubins/one.cubin", "1", "9.0a", "native", "none"],
    ]


def test_a_name_that_a_terminal_would_obey_is_quoted() -> None:
    assert shown("torch/lib/é.so") == "torch/lib/é.so"
    for name in nonempty(["a\nb.so", "a\x1b[2J.so", "a\u202eos.b", "a\u2028b.so", "a\udcffb.so"]):
        assert shown(name).isprintable()
        assert shown(name) == repr(name)
    entry = Entry("SASS", 75, "", (1, 7), 0, "", 0, 0, 0, 0)
    one = Library(True, 0, (Section("s", 0, 0, 0, (Container(0, 0, 0, 0, (entry,)),)),))
    _, rows = table(Audit("x", (Audited("a\nb.so", one),)), [(7, 5)])
    assert rows[0][0] == "'a\\nb.so'"


PART = container(Code(80), Code(90, kind=PTX))
SEEDS = (
    (cubin(100, "a"), "a.cubin"),
    (cubin(75), "without"),
    (container(Code(80), Code(90)), "a.fatbin"),
    (archive(("a.o", library([sm(75)])), ("b.o", cubin(90))), "l.a"),
    (ptx_text("sm_90a"), "k.ptx"),
    (linked_library(sm(80), [PART, PART]), "l.so"),
    (library(tail=b"xx" + container(Code(75)) + cubin(90) + b"z" * 50), "l.so"),
    (b"MZ" + bytes(64) + container(Code(75)), "x.dll"),
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_damage_is_refused_or_read(seed: tuple[bytes, str], data: st.DataObject) -> None:
    content = bytearray(seed[0])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
    content = content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    try:
        found = read(bytes(content), seed[1])
    except FatbinError:
        return
    assert judge(found, (7, 5)).capability == (7, 5)
