from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images.device_code import fatbin, slim
from images.device_code.choose import SASS, Entry, Wanted, parse_wanted, pick
from images.device_code.layout import SlimRefused, read_layout
from images.device_code.record import file_hash
from images.device_code.slim import slim_command, slim_folder, slim_library
from images.device_code.verdict import judge
from tests.helpers.elf_files import PTX, A, Code, F, container, library, sm

BIG = container(Code(75, size=9000, fill=1), Code(80, size=9000, fill=2), Code(86, size=9000, fill=3))


def wanted(*archs: str) -> list[Wanted]:
    return [parse_wanted(arch) for arch in archs]


def held(path: Path) -> list[list[tuple[str, int]]]:
    """What the reader, which slimming does not use, finds: kind and arch of each entry of each container."""
    read = fatbin.read(path)
    containers = [one for section in read.sections for one in section.containers]
    return [[(entry.kind, entry.arch) for entry in one.entries] for one in containers]


def write(folder: Path, content: bytes, name: str = "lib.so") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("relr", [False, True])
@pytest.mark.parametrize("section", [".nv_fatbin", "__nv_relfatbin"])
def test_only_the_wanted_code_stays_and_pages_go(tmp_path: Path, relr: bool, section: str) -> None:
    path = write(tmp_path, library([BIG, sm(70, 80), BIG], relr=relr, section=section))
    before = path.stat().st_size
    report = slim_library(path, wanted("7.5"))
    assert report is not None
    assert held(path) == [[("SASS", 75)], [("SASS", 70)], [("SASS", 75)]]
    assert (report.before, report.after) == (before, path.stat().st_size)
    assert before - report.after >= 8 * 4096
    assert report.archs_after == ("sm_70", "sm_75")
    assert report.emptied == 0


@pytest.mark.parametrize("relr", [False, True])
def test_wrappers_lead_to_the_moved_containers_and_host_code_keeps_its_address(tmp_path: Path, relr: bool) -> None:
    host = b"host code" * 100
    old = library([BIG, sm(75, 80), BIG], relr=relr, tail=host)
    path = write(tmp_path, old)
    slim_library(path, wanted("8.6"))
    new = path.read_bytes()
    layouts = read_layout(old), read_layout(new)
    places = [next(one for one in layout.sections if one.name == ".rodata") for layout in layouts]
    assert places[0].addr == places[1].addr
    at = layouts[1].file_offset(places[1].addr, len(host))
    assert at == places[1].offset
    assert new[at : at + len(host)] == host
    starts = [one.address for section in fatbin.read(path).sections for one in section.containers]
    assert _targets(new, relr) == starts


def _targets(content: bytes, relr: bool) -> list[int]:
    layout = read_layout(content)
    by_name = {one.name: one for one in layout.sections}
    if relr:
        wrappers = by_name[".nvFatBinSegment"]
        return [struct.unpack_from("<Q", content, at + 8)[0] for at in range(wrappers.offset, wrappers.end, 24)]
    table = by_name[".rela.dyn"]
    return [struct.unpack_from("<Q", content, at + 16)[0] for at in range(table.offset, table.end, 24)]


def test_slimming_twice_is_slimming_once(tmp_path: Path) -> None:
    path = write(tmp_path, library([BIG, sm(80), BIG]))
    slim_library(path, wanted("7.5"))
    first, inode = path.read_bytes(), path.stat().st_ino
    report = slim_library(path, wanted("7.5"))
    assert report is not None
    assert not report.changed
    assert (path.read_bytes(), path.stat().st_ino) == (first, inode)


def test_a_container_for_no_wanted_card_keeps_its_smallest_entry(tmp_path: Path) -> None:
    path = write(tmp_path, library([container(Code(80, size=800), Code(90, size=160)), BIG]))
    report = slim_library(path, wanted("7.5"))
    assert report is not None
    assert held(path) == [[("SASS", 90)], [("SASS", 75)]]
    assert report.emptied == 1


def test_or_nothing_when_hollow(tmp_path: Path) -> None:
    path = write(tmp_path, library([sm(80, 90), BIG]))
    slim_library(path, wanted("7.5"), hollow=True)
    assert held(path) == [[], [("SASS", 75)]]


@pytest.mark.parametrize("relr", [False, True])
def test_no_device_code_is_left_where_no_card_is_used_and_the_host_code_is_as_it_was(
    tmp_path: Path, relr: bool
) -> None:
    host = b"host code" * 100
    old = library([BIG, sm(70, 80), BIG], relr=relr, tail=host)
    path = write(tmp_path, old)
    report = slim_library(path, (), hollow=True)
    assert report is not None
    assert held(path) == [[], [], []]
    assert report.archs_after == ()
    new = path.read_bytes()
    assert len(old) - len(new) >= 12 * 4096
    rodata = next(one for one in read_layout(new).sections if one.name == ".rodata")
    assert new[rodata.offset : rodata.offset + len(host)] == host
    starts = [one.address for section in fatbin.read(path).sections for one in section.containers]
    assert _targets(new, relr) == starts
    assert slim_library(path, (), hollow=True) is None
    assert path.read_bytes() == new


def test_without_a_card_nothing_is_slimmed_unless_all_of_it_is_to_go(tmp_path: Path) -> None:
    packages = site(tmp_path)
    before = (packages / "torch/lib/libtorch.so").read_bytes()
    for slimming in (lambda: slim_library(packages / "torch/lib/libtorch.so", ()), lambda: slim_folder(packages, ())):
        with pytest.raises(ValueError, match="no card is named"):
            slimming()
    with pytest.raises(ValueError, match=r"no card is named: give --arch, such as --arch 7\.5, or --no-card"):
        slim_command(str(packages), [])
    with pytest.raises(ValueError, match=r"a card is named \(7\.5\)"):
        slim_command(str(packages), ["7.5"], no_card=True)
    assert (packages / "torch/lib/libtorch.so").read_bytes() == before


@pytest.mark.parametrize("content", [library(), b"", b"\x7fELF", b"#!/bin/sh\n", os.urandom(5000)])
def test_what_holds_no_device_code_is_not_touched(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    inode = path.stat().st_ino
    assert slim_library(path, wanted("7.5")) is None
    assert (path.read_bytes(), path.stat().st_ino) == (content, inode)


def test_a_program_that_only_names_the_section_holds_no_device_code(tmp_path: Path) -> None:
    program = bytearray(library(tail=b"reads .nv_fatbin of other files"))
    struct.pack_into("<H", program, 16, 2)  # ET_EXEC, as cuobjdump is
    assert slim_library(write(tmp_path, bytes(program)), wanted("7.5")) is None


def test_mode_and_time_stay(tmp_path: Path) -> None:
    path = write(tmp_path, library([BIG]))
    path.chmod(0o640)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    slim_library(path, wanted("7.5"))
    assert (path.stat().st_mode & 0o7777, path.stat().st_mtime) == (0o640, 1_000_000_000)


def _sass(*archs: int) -> list[Entry]:
    return [Entry(SASS, arch, 0, 128) for arch in archs]


@pytest.mark.parametrize(
    ("held_archs", "card", "taken"),
    [
        ((70, 75, 80), "7.5", [75]),
        ((70, 80), "7.5", [70]),
        ((80, 86, 90), "8.9", [86]),
        ((80, 90), "7.5", []),
        ((90, 90, 80), "9.0", [90, 90]),  # sm_90 and sm_90a share a number: both stay
        ((100, 90), "10.3", [100]),
        ((100, 101, 90), "10.3", [101]),
        ((12,), "12.0", []),
    ],
)
def test_the_drivers_rule(held_archs: tuple[int, ...], card: str, taken: list[int]) -> None:
    assert [entry.arch for entry in pick(_sass(*held_archs), wanted(card))] == taken


def test_code_of_one_card_alone_is_no_other_cards(tmp_path: Path) -> None:
    code = container(Code(100), Code(103, flags=A), Code(90, flags=A), Code(90, kind=PTX), Code(100, kind=PTX, flags=F))
    for card, taken in {"10.0": [("SASS", 100)], "10.3": [("SASS", 103)], "12.0": [("PTX", 90)]}.items():
        path = write(tmp_path, library([code]))
        slim_library(path, wanted(card))
        assert held(path) == [taken]


def test_ptx_stays_only_where_it_is_needed(tmp_path: Path) -> None:
    code = container(Code(80), Code(70, kind=PTX, size=80), Code(50, kind=PTX))
    path = write(tmp_path, library([code]))
    slim_library(path, wanted("7.5"))
    assert held(path) == [[("PTX", 70)]]
    path = write(tmp_path, library([code]))
    slim_library(path, wanted("8.0"))
    assert held(path) == [[("SASS", 80)]]
    path = write(tmp_path, library([code]))
    slim_library(path, wanted("8.0+PTX"))
    assert held(path) == [[("SASS", 80), ("PTX", 70)]]


@pytest.mark.parametrize("text", ["75", "sm_75", "SM75", "compute_75", " 7.5 "])
def test_a_capability_in_any_form(text: str) -> None:
    assert parse_wanted(text) == Wanted(75)
    assert parse_wanted(f"{text.strip()}+PTX") == Wanted(75, ptx=True)


@pytest.mark.parametrize(
    "text", ["", "7", "7.5.1", "07.5", "7.5b", "12.9", "7.9", "2.5", "99.9", "10.1", "\uff17.\uff15"]
)
def test_what_is_no_capability(text: str) -> None:
    with pytest.raises(ValueError, match="compute capability"):
        parse_wanted(text)


def _broken() -> dict[str, bytes]:
    good = library([BIG, sm(75, 80)])
    layout = read_layout(good)
    by_name = {one.name: one for one in layout.sections}
    rela, code = by_name[".rela.dyn"].offset, by_name[".nv_fatbin"].offset

    def put(at: int, form: str, value: int) -> bytes:
        changed = bytearray(good)
        struct.pack_into(form, changed, at, value)
        return bytes(changed)

    return {
        "middle of a container": put(rela + 16, "<Q", by_name[".nv_fatbin"].addr + 8),
        "no relocation": put(rela + 8, "<Q", 6),
        "unknown kind": put(code + 16, "<H", 9),
        "container of device code that is known": put(code + 4, "<H", 2),
        "runs past its section": put(code + 8, "<Q", 1 << 40),
        "unknown shape": put(code + 16 + 8, "<Q", 1 << 63),
        "64-bit x86-64": put(18, "<H", 183),
        "past the end": good[:-64],
        "wrapper of an unknown kind": put(by_name[".nvFatBinSegment"].offset, "<I", 1),
    }


@pytest.mark.parametrize("reason", _broken())
def test_an_unknown_layout_is_refused_and_left_alone(tmp_path: Path, reason: str) -> None:
    content = _broken()[reason]
    path = write(tmp_path, content)
    with pytest.raises(SlimRefused, match=reason) as caught:
        slim_library(path, wanted("7.5"))
    assert "at byte 0x" in str(caught.value)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def _without_spare(content: bytes, *, phdr: bool) -> bytes:
    """With no PT_NOTE: its header is that of the stack, or tells where the table of headers is."""
    changed = bytearray(content)
    at = read_layout(content).phoff + 3 * 56
    if phdr:
        struct.pack_into("<IIQQQQQQ", changed, at, 6, 4, 64, 64, 64, 56 * 4, 56 * 4, 8)
    else:
        struct.pack_into("<I", changed, at, 0x6474E551)
    return bytes(changed)


@pytest.mark.parametrize("phdr", [False, True])
@pytest.mark.parametrize("cards", [["7.5"], ["8.6", "8.0"]])
def test_where_no_program_header_is_spare_the_table_moves(tmp_path: Path, phdr: bool, cards: list[str]) -> None:
    """As in the libraries of JAX, TensorFlow and Paddle."""
    host = b"host code" * 1000
    old = _without_spare(library([BIG, sm(70, 80), BIG], tail=host), phdr=phdr)
    path = write(tmp_path, old)
    report = slim_library(path, wanted(*cards))
    assert report is not None
    assert report.after <= report.before - 2 * 4096
    new = path.read_bytes()
    layout = read_layout(new)
    assert len(layout.segments) == 5
    (first, second, *_) = layout.loads()
    assert first.offset <= layout.phoff
    assert layout.phoff + 56 * 5 <= first.end == second.offset
    (place,) = [one for one in layout.sections if one.name == ".rodata"]
    assert new[layout.file_offset(place.addr, len(host)) :][: len(host)] == host
    table = [one for one in layout.segments if one.kind == 6]
    assert [(one.offset, layout.file_offset(one.vaddr, one.filesz), one.filesz) for one in table] == (
        [(layout.phoff, layout.phoff, 56 * 5)] if phdr else []
    )
    assert len(held(path)) == 3
    again = slim_library(path, wanted(*cards))
    assert again is not None
    assert not again.changed
    slim_library(path, wanted(cards[0]))  # for fewer cards: the table moves again, or has room
    assert held(path)[0] == [("SASS", int(cards[0].replace(".", "")))]


def test_what_is_cut_keeps_the_alignment_that_a_section_wants(tmp_path: Path) -> None:
    """As `.rodata` of JAX's plugin, aligned to 32 KB: offsets and addresses agree in every segment."""
    content = bytearray(library([BIG, BIG, BIG, BIG], tail=b"t" * 70000))
    layout = read_layout(bytes(content))
    index = [one.name for one in layout.sections].index(".rodata")
    struct.pack_into("<Q", content, layout.shoff + 64 * index + 48, 0x8000)
    struct.pack_into("<Q", content, layout.phoff + 48, 0x8000)
    path = write(tmp_path, bytes(content))
    report = slim_library(path, wanted("7.5"))
    assert report is not None
    assert (report.before - report.after) % 0x8000 == 0
    assert report.after < report.before
    loads = read_layout(path.read_bytes()).loads()
    assert [one.align for one in loads] == [0x8000, 0x8000, 0x1000]
    assert all((one.vaddr - one.offset) % one.align == 0 for one in loads)


def test_a_full_disk_leaves_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = library([BIG])
    path = write(tmp_path, content)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        slim_library(path, wanted("7.5"))
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def site(tmp_path: Path) -> Path:
    """A site-packages of one wheel with device code and one of NVIDIA's."""
    packages = tmp_path / "site-packages"
    for name, place in (("torch", "torch/lib/libtorch.so"), ("nvidia_cublas_cu12", "nvidia/cublas/lib/libcublas.so")):
        path = write(packages, library([BIG]), place)
        row = f"{place},{file_hash(path)},{path.stat().st_size}\n"
        (packages / f"{name}-1.0.dist-info").mkdir()
        (packages / f"{name}-1.0.dist-info" / "RECORD").write_text(f'"a,b.py",sha256=x,1\n{row}{name}/RECORD,,\n')
    return packages


def test_a_folder_without_nvidias_own_and_with_its_record(tmp_path: Path) -> None:
    packages = site(tmp_path)
    untouched = (packages / "nvidia/cublas/lib/libcublas.so").read_bytes()
    report = slim_folder(packages, wanted("7.5"))
    path = packages / "torch/lib/libtorch.so"
    assert [one.path for one in report.libraries] == [str(path)]
    assert report.after < report.before
    assert (packages / "nvidia/cublas/lib/libcublas.so").read_bytes() == untouched
    assert [Path(one.path).name for one in report.left] == ["libcublas.so"]
    row = f"torch/lib/libtorch.so,{file_hash(path)},{path.stat().st_size}\n"
    record = (packages / "torch-1.0.dist-info" / "RECORD").read_text()
    assert record == f'"a,b.py",sha256=x,1\n{row}torch/RECORD,,\n'


def test_nvidias_own_only_when_asked_and_the_licence_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = site(tmp_path)
    assert slim_command(str(packages), ["7.5"], nvidia_libraries=True) == 0
    assert held(packages / "nvidia/cublas/lib/libcublas.so") == [[("SASS", 75)]]
    result = capsys.readouterr()
    assert "must not be published" in result.err
    assert "2 libraries for 7.5" in result.out


def test_a_refused_library_is_reported_and_the_rest_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages = site(tmp_path)
    bad = write(packages, library([BIG])[:-64], "bad/lib.so")
    assert slim_command(str(packages), ["7.5"], as_json=True) == 1
    result = capsys.readouterr()
    assert f"refused, left as it was: {bad}" in result.err
    assert '"refused"' in result.out
    assert held(packages / "torch/lib/libtorch.so") == [[("SASS", 75)]]


def test_usage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        slim.main([str(tmp_path), "--arch", "12.9"])
    assert ended.value.code == 2
    with pytest.raises(ValueError, match="not a folder"):
        slim_command(str(tmp_path / "none"), ["7.5"])


ARCHS = st.lists(st.sampled_from([50, 70, 75, 80, 86, 89, 90, 100, 120]), min_size=1, max_size=6)
CODES = st.lists(
    ARCHS.flatmap(lambda archs: st.tuples(st.just(archs), st.lists(st.integers(1, 600), min_size=6, max_size=6))),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=CODES, cards=st.lists(st.sampled_from(["7.5", "8.6", "9.0", "12.0"]), min_size=1, unique=True))
def test_any_library_holds_exactly_what_the_driver_would_take(
    tmp_path: Path, codes: list[tuple[list[int], list[int]]], cards: list[str]
) -> None:
    containers = [
        container(*(Code(arch, size=8 * size) for arch, size in zip(archs, sizes, strict=False)))
        for archs, sizes in codes
    ]
    path = write(tmp_path, library(containers, tail=b"t" * 5000))
    slim_library(path, wanted(*cards))
    for (archs, _), now in zip(codes, held(path), strict=True):
        taken = [("SASS", entry.arch) for entry in pick(_sass(*archs), wanted(*cards))]
        assert now == taken if taken else len(now) == 1
    once = path.read_bytes()
    slim_library(path, wanted(*cards))
    assert path.read_bytes() == once


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([50, 70, 75, 80, 86, 90, 100, 101, 103, 120]),
        st.sampled_from([PTX, 2]),
        st.sampled_from([0, 0, A, F]),
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=ENTRIES, card=st.sampled_from([(7, 5), (8, 6), (9, 0), (10, 0), (10, 3), (12, 1)]))
def test_the_audit_says_of_a_wanted_card_what_it_said_before(
    tmp_path: Path, entries: list[tuple[int, int, int]], card: tuple[int, int]
) -> None:
    code = container(*(Code(arch, kind=kind, flags=flags) for arch, kind, flags in entries))
    path = write(tmp_path, library([code, sm(50)]))
    before = judge(fatbin.read(path), card)
    slim_library(path, wanted(f"{card[0]}.{card[1]}"))
    after = judge(fatbin.read(path), card)
    assert (after.kind, after.ptx, len(after.lacking)) == (before.kind, before.ptx, len(before.lacking))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_refused_or_survived(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(library([BIG, sm(75, 80), BIG]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = write(tmp_path, bytes(content))
    try:
        report = slim_library(path, wanted("7.5"))
    except SlimRefused:
        report = None
    if report is None or not report.changed:
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
