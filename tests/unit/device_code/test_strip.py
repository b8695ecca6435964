"""What no loader maps goes; what is loaded stays, byte for byte and at its address; anything unknown is left alone."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.device_code import fatbin
from images.device_code.choose import parse_wanted
from images.device_code.layout import PT_LOAD, SlimRefused, read_layout
from images.device_code.record import file_hash
from images.device_code.slim import slim_library
from images.device_code.strip import make_plan, strip_folder, strip_library
from tests.helpers.elf_files import Code, container, debugged, library

CODE = container(Code(75, size=9000, fill=1), Code(80, size=9000, fill=2))
PLAIN = library([CODE], tail=b"host code" * 50)
PATCHED = b"a table that was put behind " * 300


def loaded(content: bytes) -> dict[int, bytes]:
    """What a loader maps, by address; the file's own header left out, for it names the table of sections."""
    layout = read_layout(content)
    found = {}
    for segment in layout.segments:
        if segment.kind == PT_LOAD:
            skipped = 64 + 56 * len(layout.segments) if segment.offset == 0 else 0
            found[segment.vaddr + skipped] = content[segment.offset + skipped : segment.end]
    return found


def names(content: bytes) -> set[str]:
    return {one.name for one in read_layout(content).sections if one.name}


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("patched", [b"", PATCHED])
@pytest.mark.parametrize("size", [5000, 20000, 70001])
def test_what_is_loaded_stays_and_the_rest_goes(tmp_path: Path, patched: bytes, size: int) -> None:
    old = debugged(PLAIN, size, patched=patched)
    path = write(tmp_path / "lib.so", old)
    freed = strip_library(path)
    new = path.read_bytes()
    assert freed == len(old) - len(new)
    assert freed > 3 * size - 2 * 4096
    assert loaded(new) == loaded(old)
    assert names(old) - names(new) == {".debug_info", ".symtab", ".strtab"}
    assert b"made by hand" in new
    assert b"dddd" not in new
    assert not patched or loaded(new)[max(loaded(new))] == patched


def test_sections_keep_their_numbers_and_code_for_cards_is_found(tmp_path: Path) -> None:
    old = debugged(PLAIN, patched=PATCHED)
    path = write(tmp_path / "lib.so", old)
    strip_library(path)
    before, after = read_layout(old), read_layout(path.read_bytes())
    kept = [(index, one.name) for index, one in enumerate(after.sections) if one.name]
    assert kept == [(index, before.sections[index].name) for index, _ in kept]
    assert [entry.arch for entry in fatbin.read(path).entries] == [75, 80]


def test_stripping_twice_is_stripping_once(tmp_path: Path) -> None:
    path = write(tmp_path / "lib.so", debugged(PLAIN, patched=PATCHED))
    assert strip_library(path)
    once = path.read_bytes()
    assert strip_library(path) == 0
    assert path.read_bytes() == once


def test_stripping_and_slimming_meet_in_any_order(tmp_path: Path) -> None:
    content = debugged(PLAIN)
    wanted = [parse_wanted("7.5")]
    first, second = write(tmp_path / "a.so", content), write(tmp_path / "b.so", content)
    strip_library(first)
    slim_library(first, wanted)
    slim_library(second, wanted)
    strip_library(second)
    for path in (first, second):
        assert [entry.arch for entry in fatbin.read(path).entries] == [75]
        assert ".debug_info" not in names(path.read_bytes())
    assert loaded(first.read_bytes()) == loaded(second.read_bytes())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (debugged(PLAIN, tail=b"an archive that a program reads from its own file"), "no header tells of"),
        (PLAIN[:-10], "end of the file"),
        (b"\x7fELF" + bytes(200), "not a 64-bit"),
    ],
)
def test_an_unknown_layout_is_refused_and_left_alone(tmp_path: Path, content: bytes, reason: str) -> None:
    path = write(tmp_path / "lib.so", content)
    with pytest.raises(SlimRefused, match=reason):
        strip_library(path)
    assert path.read_bytes() == content


def test_names_that_another_section_needs_are_refused(tmp_path: Path) -> None:
    content = bytearray(debugged(PLAIN))
    layout = read_layout(bytes(content))
    index = next(index for index, one in enumerate(layout.sections) if one.name == ".symtab")
    struct.pack_into("<I", content, layout.shoff + 64 * 1 + 40, index)
    with pytest.raises(SlimRefused, match="leads to one that would go"):
        strip_library(write(tmp_path / "lib.so", bytes(content)))


def test_a_library_without_any_is_not_written_to(tmp_path: Path) -> None:
    path = write(tmp_path / "lib.so", PLAIN)
    inode = path.stat().st_ino
    assert strip_library(path) == 0
    assert (path.stat().st_ino, path.read_bytes()) == (inode, PLAIN)


def test_a_folder_with_its_records_and_without_nvidias_own(tmp_path: Path) -> None:
    site = tmp_path / "lib/python3.11/site-packages"
    old = debugged(PLAIN)
    mine = write(site / "pkg/lib.so", old)
    nvidias = [
        write(site / "nvidia/cublas/lib/libcublas.so.12", old),
        write(site / "triton/backends/nvidia/bin/ptxas", old),
        write(site / "torchvision.libs/libcudart.41118559.so.12", old),
    ]
    odd = write(site / "pkg/odd.so", old + b"more")
    record = write(site / "pkg-1.dist-info/RECORD", b"pkg/lib.so,sha256=x,1\npkg/odd.so,sha256=y,2\n")
    count, freed = strip_folder(site)
    assert (count, freed) == (1, len(old) - mine.stat().st_size)
    assert [path.read_bytes() for path in nvidias] == [old] * 3
    assert odd.read_bytes() == old + b"more"
    rows = record.read_text().splitlines()
    assert rows == [f"pkg/lib.so,{file_hash(mine)},{mine.stat().st_size}", "pkg/odd.so,sha256=y,2"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_survived(data: st.DataObject) -> None:
    """A plan for a damaged file either is refused or leaves every loaded byte where it was."""
    content = bytearray(debugged(PLAIN, 6000, patched=data.draw(st.sampled_from([b"", PATCHED]))))
    layout = read_layout(bytes(content))
    spans = [(0, 64 + 56 * 4), (layout.shoff, len(content))]
    for _ in range(data.draw(st.integers(1, 4))):
        start, end = data.draw(st.sampled_from(spans))
        content[data.draw(st.integers(start, end - 1))] = data.draw(st.integers(0, 255))
    old = bytes(content)
    try:
        plan = make_plan(old)
    except SlimRefused:
        return
    if not plan.pieces:
        return
    new = b"".join(
        piece.literal or (old[piece.source :][: piece.size] if piece.source is not None else bytes(piece.size))
        for piece in plan.pieces
    )
    changed = bytearray(new)
    for at, patch in plan.patches:
        changed[at : at + len(patch)] = patch
    assert loaded(bytes(changed)) == loaded(old)
