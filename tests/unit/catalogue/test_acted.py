"""The column of cards that were acted: its own, with its own word, and never as a run on the card."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from images.catalogue import readme_table
from images.catalogue.acted import HEADER, acted_cell, with_acted
from images.catalogue.card_table import CardRow, row_json
from images.catalogue.evidence import UNSEEN
from images.proof.on_card.records.record import ActedAs, GpuRecord, Step
from tests.helpers.contexts import context
from tests.helpers.fits import card
from tests.helpers.matrices import matrix, variants
from tests.helpers.nonempty import nonempty

SM75, SM80, SM90 = (f"cu130-vllm0.33.0-{end}" for end in ("triton-sm75", "flash-attn-sm80", "flash-attn-sm90"))
RECORD = GpuRecord(
    card="NVIDIA H200",
    capability="9.0",
    memory=0,
    driver="580.159.04",
    created="2026-11-28T05:00:00+00:00",
    place="image",
    variant=SM90,
    input_hash="ab" * 32,
    versions={},
    steps=(
        Step("machine", "passed"),
        Step("T4: choices", "passed"),
        Step("T4: tiny", "passed"),
        Step("A100: choices", "passed"),
        Step("A100: tiny", "not run", "not healthy after 300 s"),
        Step("planted: AWQ on 7.0", "passed"),
    ),
    name="h200-acted",
    acted=(ActedAs("T4", "Tesla T4", "7.5", SM75), ActedAs("A100", "NVIDIA A100-SXM4-40GB", "8.0", SM80)),
)
TODAY = {SM90: RECORD.input_hash}
LINK = "records/cards/h200-acted.json"


def test_the_word_names_the_capability_and_the_real_card() -> None:
    assert acted_cell([RECORD], SM75, TODAY, links=False) == "acted as 7.5 on NVIDIA H200, 2026-11-28"
    assert acted_cell([RECORD], SM75, TODAY, links=True) == f"[acted as 7.5 on NVIDIA H200]({LINK}), 2026-11-28"
    assert acted_cell([RECORD], SM90, TODAY, links=False) == ""  # the image that ran stood in for others
    assert acted_cell([], SM75, TODAY, links=False) == ""


def test_choices_without_an_answer_are_less_than_acted() -> None:
    told = "acted as 8.0 on NVIDIA H200: no answer was seen, 2026-11-28"
    assert acted_cell([RECORD], SM80, TODAY, links=False) == told


def test_an_answer_hides_a_run_that_has_seen_none() -> None:
    steps = tuple(replace(step, verdict="passed", reason="") for step in RECORD.steps)
    later = replace(RECORD, steps=steps, created="2026-11-28T10:00:00+00:00", name="later")
    for records in ([RECORD, later], [later, RECORD]):
        assert acted_cell(records, SM80, TODAY, links=False) == "acted as 8.0 on NVIDIA H200, 2026-11-28"
    elsewhere = replace(later, card="NVIDIA H100")
    assert acted_cell([RECORD, elsewhere], SM80, TODAY, links=False).count("acted as 8.0") == 2


def test_a_failure_is_told_and_hides_what_passed() -> None:
    other = ActedAs("2080-Ti", "NVIDIA GeForce RTX 2080 Ti", "7.5", SM75)
    steps = (*RECORD.steps, Step("2080-Ti: 3b", "failed", "said !!!!"))
    bad = replace(RECORD, steps=steps, acted=(*RECORD.acted, other))
    assert acted_cell([bad], SM75, TODAY, links=False) == "acted as 7.5 on NVIDIA H200: 2080-Ti: 3b failed, 2026-11-28"


def test_cards_of_one_capability_that_failed_are_told_together() -> None:
    other = ActedAs("2080-Ti", "NVIDIA GeForce RTX 2080 Ti", "7.5", SM75)
    steps = (replace(RECORD.steps[2], verdict="failed", reason="x"), Step("2080-Ti: tiny", "failed", "x"))
    bad = replace(RECORD, steps=(*RECORD.steps[:2], *steps), acted=(*RECORD.acted, other))
    told = "acted as 7.5 on NVIDIA H200: T4: tiny, 2080-Ti: tiny failed, 2026-11-28"
    assert acted_cell([bad], SM75, TODAY, links=False) == told


def test_the_same_on_another_day_is_told_once() -> None:
    later = replace(RECORD, created="2026-12-01T00:00:00+00:00", name="later")
    assert acted_cell([later, RECORD], SM75, TODAY, links=False) == "acted as 7.5 on NVIDIA H200, 2026-12-01"
    elsewhere = replace(later, card="NVIDIA H100")
    assert acted_cell([elsewhere, RECORD], SM75, TODAY, links=False).count("acted as 7.5") == 2


def test_an_image_of_other_inputs_than_todays_is_an_earlier_build_and_told_where_none_of_todays_was_acted() -> None:
    told = "acted as 7.5 on NVIDIA H200 (an earlier build), 2026-11-28"
    for today in ({SM90: "cd" * 32}, {}, {SM75: RECORD.input_hash}):
        assert acted_cell([RECORD], SM75, today, links=False) == told
    unknown = replace(RECORD, input_hash="")
    assert acted_cell([unknown], SM75, {SM90: ""}, links=False) == told
    before = replace(RECORD, input_hash="cd" * 32, created="2026-11-29T00:00:00+00:00", name="before")
    for records in ([RECORD, before], [before, RECORD]):
        assert acted_cell(records, SM75, TODAY, links=False) == "acted as 7.5 on NVIDIA H200, 2026-11-28"


def test_the_column_is_there_where_a_record_acts_and_stands_before_what_was_seen() -> None:
    own = variants()
    lines = [["image", "seen", "why"], [SM75, "x", ""], [SM90, "y", ""]]
    images = [own.valid[SM75], own.valid[SM90]]
    assert with_acted(lines, images, [], TODAY) == lines
    assert with_acted(lines, images, [RECORD], TODAY, behind=2) == [
        ["image", HEADER, "seen", "why"],
        [SM75, "acted as 7.5 on NVIDIA H200, 2026-11-28", "x", ""],
        [SM90, "-", "y", ""],
    ]


def test_readme_shows_it_and_never_as_a_run_on_the_card() -> None:
    on_80 = replace(RECORD, steps=tuple(replace(step, verdict="passed", reason="") for step in RECORD.steps))
    text = readme_table.table_text(matrix(), variants(), [on_80], None, TODAY)
    header, line, *rows = [one for one in text.splitlines() if one.startswith("|")]
    assert header.split("|")[-3].strip() == HEADER
    assert line.count("---") == header.count("|") - 1
    row = next(one for one in nonempty(rows) if f"`{SM80}`" in one)
    assert f"[acted as 8.0 on NVIDIA H200]({LINK}), 2026-11-28 | {UNSEEN} |" in row
    hopper = next(one for one in rows if f"`{SM90}`" in one)
    assert hopper.endswith(f"| - | {UNSEEN} |")
    assert HEADER not in readme_table.table_text(matrix(), variants(), [], None, TODAY).splitlines()[0]


def test_the_list_of_cards_has_the_column_too(capsys: pytest.CaptureFixture[str]) -> None:
    from images.commands.cards import CardsOptions, show_cards

    on_80 = replace(RECORD, steps=tuple(replace(step, verdict="passed", reason="") for step in RECORD.steps))
    show_cards(context(), CardsOptions(), [on_80])
    said = capsys.readouterr()
    assert "acted as 8.0 on NVIDIA H200" in said.out + said.err


def test_scripts_are_told_of_it_apart_from_what_is_proven() -> None:
    row = CardRow(card("A100"), variants().valid[SM80])
    told = row_json(row, [RECORD], TODAY)
    assert told["acted"] == "acted as 8.0 on NVIDIA H200: no answer was seen, 2026-11-28"
    assert told["acted"] not in json.dumps({**told, "acted": None})
