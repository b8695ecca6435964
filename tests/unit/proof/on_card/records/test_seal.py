"""The seal of a record: what it is made of, who puts it on, and that a later step breaks it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from images.proof.on_card.prove import put_seal_on
from images.proof.on_card.records.reading import read_gpu_record, read_with_data
from images.proof.on_card.records.record import Seal
from images.proof.on_card.records.seal import POSITIONS, TOKENS, content_hash, pack_logits, question, why_not_sealed
from images.proof.on_card.runs.run import Run
from images.proof.tiny_model import tokenizer
from images.proof.tiny_model.reference import text_logits
from tests.helpers.nonempty import nonempty
from tests.helpers.sent_in import answer_like_torch, good_record


def _run(folder: Path) -> Run:
    return Run(good_record(), folder / "record.json", folder, {"image": None}, paths={"tiny": folder / "tiny"})


def test_a_question_is_made_of_its_seed_and_holds_no_special_token() -> None:
    first, second = question("a"), question("b")
    assert first == question("a") != second
    assert len(first) == TOKENS
    specials = set(tokenizer.special_ids().values())
    for token in nonempty(first + second):
        assert 0 <= token < tokenizer.vocab_size()
        assert token not in specials


def test_the_hash_is_of_all_but_the_seal() -> None:
    data = good_record().as_data()
    assert content_hash(data) == content_hash({**data, "seal": {"seed": "x"}})
    assert content_hash(data) != content_hash({**data, "notes": ["x"]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash({"x": float("nan")})


def test_a_run_is_sealed_at_its_end_and_a_later_step_breaks_the_seal(tmp_path: Path) -> None:
    run = _run(tmp_path)
    run.step("one more", lambda: {"seen": 1})
    run.seal(answer_like_torch)
    record, data = read_with_data(run.out)
    assert record.seal
    assert why_not_sealed(data) == ""
    again = Run(read_gpu_record(run.out), run.out, tmp_path, {"image": None})
    again.step("later", dict)
    assert read_gpu_record(run.out).seal is None


def test_logits_that_are_right_to_the_last_bit_are_no_cards(tmp_path: Path) -> None:
    run = _run(tmp_path)

    def exact(seed: str) -> Seal:
        return replace(answer_like_torch(seed), logits=pack_logits(text_logits(question(seed))[-POSITIONS:]))

    run.seal(exact)
    assert "to the last bit" in why_not_sealed(json.loads(run.out.read_text()))
    run.seal(lambda seed: replace(answer_like_torch(seed), logits=pack_logits(np.full((2, 368), np.nan))))
    assert "inf from the right ones" in why_not_sealed(json.loads(run.out.read_text()))


def test_an_image_that_cannot_answer_leaves_its_record_without_a_seal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path)
    put_seal_on(run)  # this environment has no torch
    assert "the record is not sealed" in capsys.readouterr().err
    record = read_gpu_record(run.out)
    assert record.seal is None
    assert record.steps == good_record().steps
