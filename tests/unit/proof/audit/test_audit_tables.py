"""The kept audits of real wheels: that they are of the locked wheels, and what docs/compatibility.md makes of them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from images.commands import options as typed
from images.commands import render as command
from images.core.errors import CheckFailed, UsageError
from images.device_code.audit import Audit, Audited
from images.device_code.fatbin import FatbinError, Library, read
from images.device_code.verdict import judge
from images.matrix.arch import parse_arch
from images.proof.audit.compatibility_page import record_wheel, unaudited, with_cards_table
from images.proof.audit.notes import notes, spell_cards
from images.proof.audit.table import CARDS, PARTS, cell, stacks_of, table
from images.proof.audit.wheels import FOLDER, Wheel, from_json, make_record, read_records, to_json
from images.render.checkout import Checkout
from images.render.document import CARDS as CARDS_TABLE
from tests.helpers.contexts import context
from tests.helpers.elf_files import PTX, A, Code, container, library, sm
from tests.helpers.matrices import ROOT, matrix

WHEELS = read_records(ROOT / FOLDER)
KERNELS = PARTS[0]


def wheel(version: str, *containers: bytes, name: str = "torch/lib/libtorch_cuda.so", package: str = "torch") -> Wheel:
    audit = Audit("x.whl", (Audited(name, read(library(containers))),))
    return Wheel(package, version, "x.whl", "0" * 64, 1, audit)


def recorded_wheel(package: str, version: str) -> Wheel:
    return next(one for one in WHEELS if (one.package, one.version) == (package, version))


def test_records_are_of_the_very_wheels_that_are_locked() -> None:
    locks = [path.read_text(encoding="utf-8") for path in (ROOT / "dockerfiles" / "locks").glob("*-*.txt")]
    locked = set()
    for one in WHEELS:
        assert one.file.startswith(f"{one.package}-{one.version}-")
        pinned = [text for text in locks if re.search(rf"^{one.package}=={re.escape(one.version)} ", text, re.M)]
        if pinned and one.package != "xformers":  # xformers is locked as its source
            assert all(one.sha256 in text for text in pinned), one.file
            locked.add(f"{one.package} {one.version}")
    assert locked == {
        *("torch 2.4.1", "torch 2.6.0", "torch 2.7.0", "torch 2.8.0", "torch 2.10.0", "torch 2.11.0", "torch 2.14.0"),
        *("vllm 0.8.5.post1", "vllm 0.11.0", "vllm 0.19.1", "vllm 0.33.0"),
    }


def test_every_pin_from_the_package_index_has_a_record() -> None:
    assert unaudited(matrix(), WHEELS) == [
        "vLLM 0.8.5.post1+cu118 (cu118)",
        "torch 2.6.0+cu118 (cu118)",
        "torch 2.5.1+cu121 (cu121)",
        "vLLM 0.9.2+cu126 (cu126)",
    ]


def test_the_archs_that_the_matrix_says_its_stacks_hold_are_those_of_the_wheels() -> None:
    main = [part for part in PARTS if part.package in ("torch", "vllm") and not part.piece]
    compared = 0
    for name, stack in matrix().stacks.items():
        for engine in stack.backends.values():
            pinned = [(part, engine.pins[part.package].version) for part in main if part.package in engine.pins]
            exact = [
                (part, one)
                for part, pin in pinned
                for one in WHEELS
                if (part.package, pin) == (one.package, one.version)
            ]
            if stack.cuda is None or len(exact) != len(pinned):
                continue  # not all of its wheels are on the package index
            said = [parse_arch(text) for text in engine.archs.are]
            for arch in map(parse_arch, matrix().archs):
                held = all(part.judge(one, (arch.major, arch.minor)).kind != "none" for part, one in exact)
                assert held == any(code.runs_on(arch) for code in said), (name, str(arch))
                compared += 1
    assert compared == len(matrix().archs) * 9  # cu121, cu126: transformers; cu129: vLLM; cu124, cu128, cu130: both


def test_a_record_read_again_is_the_same_and_judges_the_same() -> None:
    codes = [container(Code(80), Code(80, PTX, version=(8, 4))), container(Code(90, flags=A)), sm(75, 80), sm(75, 80)]
    before = wheel("1.0", *codes)
    after = from_json(to_json(before))
    assert to_json(after) == to_json(before)
    for card in CARDS:
        one, other = (judge(made.audit.libraries[0].library, card) for made in (before, after))
        assert (one.kind, one.containers, len(one.lacking), one.ptx) == (
            other.kind,
            other.containers,
            len(other.lacking),
            other.ptx,
        )


def test_a_record_with_an_unknown_code_is_refused() -> None:
    text = to_json(wheel("1.0", sm(75))).replace('"7.5"', '"sm_75"')
    with pytest.raises(ValueError, match="sm_75"):
        from_json(text)


@pytest.mark.parametrize(
    ("card", "containers", "expected"),
    [
        ((7, 5), [sm(75)], "native"),
        ((8, 9), [sm(80, 86), sm(80, 86), sm(80)], "as 8.6"),
        ((12, 0), [container(Code(80, PTX, version=(8, 7)))], "PTX 570"),
        ((8, 0), [sm(75, 80), sm(90)], "1/2"),
        ((9, 0), [container(Code(80, PTX, version=(9, 0))), sm(75)], "1/2 PTX 580"),
        ((7, 0), [sm(75)], "-"),
    ],
)
def test_a_cell_is_the_verdict_in_a_word(card: tuple[int, int], containers: list[bytes], expected: str) -> None:
    assert cell(KERNELS, wheel("1.0", *containers), card) == expected


def test_flash_attention_is_the_third_on_hopper_and_the_second_elsewhere() -> None:
    part = next(one for one in PARTS if one.piece == "FlashAttention")
    newest = recorded_wheel("vllm", "0.25.1")
    assert [cell(part, newest, card) for card in ((7, 5), (8, 9), (9, 0), (12, 0))] == [
        "-",
        "as 8.0",
        "native",
        "PTX 580",
    ]


def test_wheels_with_the_same_verdicts_share_a_row() -> None:
    header, rows = table(matrix(), WHEELS)
    by_name = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_name["torch 2.4.1, 2.6.0, 2.7.0"]["stack"] == "cu121 cu124 cu126"
    assert by_name["torch 2.14.0: linalg"]["7.5"] == "-"
    assert by_name["torch 2.14.0"]["7.5"] == "native"
    assert not any("2.11.0" in name for name in by_name)  # kept to compare with; no stack has it


def test_the_notes_say_what_versions_dropped() -> None:
    said = notes(WHEELS, [one for one in WHEELS if stacks_of(matrix(), one)])
    for start in (
        "torch 2.11.0 drops linalg on 7.5, where 2.10.0",
        "torch 2.11.0 drops 7.0: ",
        "xformers 0.0.31 drops 6.0, 6.1, 7.0: ",
        "vLLM 0.20.0 drops 7.0: ",
        "vLLM 0.33.0 has nothing for 7.0 and older",
        "vLLM 0.11.0 brings 10.0 and newer",
    ):
        assert any(note.startswith(start) for note in said), start


def test_a_version_that_changes_nothing_gives_no_note() -> None:
    everything = container(*(Code(major * 10 + minor) for major, minor in CARDS))
    same = [wheel("1.0", everything), wheel("1.1", everything)]
    assert [note for note in notes(same, same) if "linalg" not in note] == []


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ([(7, 5)], "7.5"),
        ([(5, 0)], "5.0"),
        ([(6, 0), (5, 0)], "6.0 and older"),
        ([(7, 5), (12, 0), (12, 1)], "7.5, 12.0 and newer"),
        ([(5, 0), (6, 0), (8, 0), (12, 0), (12, 1)], "6.0 and older, 8.0, 12.0 and newer"),
    ],
)
def test_cards_are_spelled_briefly(cards: list[tuple[int, int]], expected: str) -> None:
    assert spell_cards(cards) == expected


def test_the_page_holds_the_table_of_today() -> None:
    committed = {CARDS_TABLE.page: (ROOT / CARDS_TABLE.page).read_text(encoding="utf-8")}
    assert with_cards_table(ROOT, matrix(), committed) == committed, "./inv render"


def wheel_file(folder: Path, name: str) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("torch/lib/libtorch_cuda.so", library([sm(75, 80), sm(80)]))
        file.writestr("torch/lib/libc10.so", library())
    return path


def test_recording_a_wheel_keeps_what_its_audit_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = wheel_file(tmp_path, "torch-9.9.0-cp311-cp311-manylinux_2_28_x86_64.whl")
    kept = record_wheel(tmp_path, path)
    (again,) = read_records(tmp_path / FOLDER)
    assert to_json(again) == to_json(kept)
    assert (again.version, again.size, again.audit.others) == ("9.9.0", path.stat().st_size, 1)
    assert [cell(KERNELS, again, card) for card in ((7, 5), (8, 0))] == ["1/2", "native"]


def test_what_is_no_wheel_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no wheel"):
        record_wheel(tmp_path, tmp_path / "torch-1.0-py3-none-any.whl")
    with pytest.raises(UsageError, match="not named as a wheel"):
        record_wheel(tmp_path, wheel_file(tmp_path, "torch.zip"))
    bad = Audit("x", (Audited("a.so", Library(True, 0), str(FatbinError("cut short", 8))),))
    with pytest.raises(CheckFailed, match="cannot be read"):
        make_record(wheel_file(tmp_path, "torch-1.0-py3-none-any.whl"), bad)
    unknown = Audit("x", (Audited("a.ltoir", Library(False, 0, unread="code for linking")),))
    with pytest.raises(CheckFailed, match="of a form that is not read"):
        make_record(wheel_file(tmp_path, "torch-1.0-py3-none-any.whl"), unknown)


def test_render_check_fails_on_a_stale_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "render_files", lambda *_: {})  # this test is about the page alone
    monkeypatch.setattr(Checkout, "generated", lambda _: {})
    stale = {CARDS_TABLE.page: "another text"}
    monkeypatch.setattr(
        "images.proof.audit.compatibility_page.with_cards_table", lambda root, matrix, pages: {**pages, **stale}
    )
    monkeypatch.setattr("bench.command.pages", lambda checkout, pages: pages)
    monkeypatch.setattr("images.commands.commands_page.with_commands_help", lambda groups, pages: pages)
    monkeypatch.setattr(
        "images.catalogue.readme_table.with_images_table", lambda root, matrix, variants, pages, today: pages
    )
    with pytest.raises(SystemExit) as caught:
        typed.run(lambda: command.write_generated(context(), command.RenderOptions(check=True)))
    assert caught.value.code == 1
    assert f"differs: {CARDS_TABLE.page}" in capsys.readouterr().err
