"""vLLM's memory measured on cards, as far as it goes without one: logs, cards that are shared out, time that ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from images.proof.memory import with_vllm
from images.proof.memory.cases import CASES, FitCase
from images.proof.on_card.records.reading import read_gpu_record
from images.proof.on_card.records.record import GpuRecord
from images.proof.on_card.runs.run import Run
from tests.helpers.nonempty import nonempty

LOG = """\
INFO 11-28 [gpu_model_runner.py:2653] Model loading took 8.3210 GiB and 2.1 seconds
DEBUG 11-28 [gpu_worker.py:280] Memory profiling takes 3 s.
    torch peak memory increase: 0.55GiB; non-torch forward increase memory: 0.12GiB; weights memory: 8.32GiB.
(Worker pid=7) INFO 11-28 [gpu_worker.py:298] Available KV cache memory: 37.25 GiB
(Worker pid=8) INFO 11-28 [gpu_worker.py:298] Available KV cache memory: 37.10 GiB
INFO 11-28 [kv_cache_utils.py:1087] GPU KV cache size: 1,391,872 tokens
INFO 11-28 [gpu_model_runner.py:3480] Graph capturing finished in 8 secs, took 0.31 GiB
"""


def test_a_log_tells_bytes_and_tokens() -> None:
    seen = with_vllm.read_log(LOG)
    assert seen["tokens"] == 1391872
    told = {name: round(value / 2**30, 2) for name, value in seen.items() if name != "tokens"}
    assert told == {"loaded": 8.32, "cache": 37.1, "computing": 0.55, "graphs": 0.31}
    assert with_vllm.read_log("nothing of it") == {}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Cases begun so far with their cards; no card is asked, and torch is one that has touched none."""

    @contextmanager
    def watched(indices: Sequence[int]) -> Iterator[dict[int, int]]:
        yield dict.fromkeys(indices, 40)

    torch = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(with_vllm, "watched", watched)
    monkeypatch.setattr(with_vllm, "ask_card", lambda index: {"used": 4, "total": 100})
    return []


def _run(folder: Path) -> Run:
    record = GpuRecord("NVIDIA H100", "9.0", 1, "580", "", "image", "", "", {}, ())
    return Run(record, folder / "record.json", folder, {"image": None})


def _go(
    folder: Path,
    begun: list[tuple[str, tuple[int, ...]]],
    work: Callable[[FitCase, Path], None],
    cards: int,
    seconds: float = 100.0,
    cases: Sequence[FitCase] = CASES,
) -> dict[str, Any]:
    def process(method: str, case: FitCase, place: Path, given: Sequence[int]) -> Any:
        begun.append((case.name, tuple(given)))
        (place / "method").write_text(method)
        return multiprocessing.get_context("fork").Process(target=work, args=(case, place))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_vllm, "_process", process)
        with_vllm.Measurement(_run(folder), cards, seconds).go(cases)
    return {step.name: step for step in read_gpu_record(folder / "record.json").steps}


def good(case: FitCase, place: Path) -> None:
    (place / "log").write_text(LOG)
    (place / "told.json").write_text(json.dumps({"worker": {"loaded": 7}}))
    os._exit(0)


def test_each_case_has_a_card_of_its_own_and_two_where_it_is_cut(
    tmp_path: Path, begun: list[tuple[str, tuple[int, ...]]]
) -> None:
    steps = _go(tmp_path, begun, good, 2)
    assert [name for name, _ in begun] == [case.name for case in CASES]  # none overtakes the one that waits for two
    for name, cards in nonempty(begun):
        assert len(cards) == (2 if "on 2 cards" in name else 1)
    assert {cards for name, cards in begun if "cards" not in name} == {(0,), (1,)}
    for step in nonempty(steps.values()):
        assert step.verdict == "passed"
        assert step.facts["worker"] == {"loaded": 7}
        assert step.facts["logged"]["tokens"] == 1391872
        assert step.facts["card"]["before"] == 4
        assert step.seconds >= 0


def test_what_needs_more_cards_or_time_is_not_run(tmp_path: Path, begun: list[tuple[str, tuple[int, ...]]]) -> None:
    steps = _go(tmp_path, begun, good, 1, seconds=60)
    two = steps["fit: 7b-fp16 on 2 cards"]
    assert (two.verdict, two.reason) == ("not run", "2 cards are needed, 1 here")
    assert steps["fit: 3b-awq with graphs"].reason == "there was no time left"  # it takes longer than the others
    assert steps["fit: 7b-awq"].verdict == "passed"
    late = _go(tmp_path / "late", begun, good, 1, seconds=1)
    assert {step.verdict for step in late.values()} == {"not run"}


def broken(case: FitCase, place: Path) -> None:
    if case.form == "awq":
        (place / "told.json").write_text(json.dumps({"error": "ValueError: no kernel"}))
    else:
        (place / "log").write_text("Segmentation fault")
    os._exit(1)


def forked_too_late(case: FitCase, place: Path) -> None:
    if (place / "method").read_text() == "fork":
        (place / "told.json").write_text(json.dumps({"error": "Cannot re-initialize CUDA in forked subprocess."}))
        os._exit(0)
    good(case, place)


def test_a_case_that_cannot_be_forked_is_started_by_itself(
    tmp_path: Path, begun: list[tuple[str, tuple[int, ...]]]
) -> None:
    steps = _go(tmp_path, begun, forked_too_late, 1, cases=CASES[:2])
    assert {step.verdict for step in steps.values()} == {"passed"}
    assert [name for name, _ in begun] == ["7b-fp16", "7b-fp16", "7b-awq"]


def stuck(case: FitCase, place: Path) -> None:
    time.sleep(600)


def test_a_case_that_breaks_fails_and_the_rest_goes_on(
    tmp_path: Path, begun: list[tuple[str, tuple[int, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [CASES[0], replace(CASES[0], model="7b-awq")]
    steps = _go(tmp_path, begun, broken, 1, cases=cases)
    assert steps["fit: 7b-fp16"].reason == "Segmentation fault"
    assert steps["fit: 7b-awq"].reason == "ValueError: no kernel"
    monkeypatch.setattr(with_vllm, "LONGEST", 0.3)
    steps = _go(tmp_path / "stuck", begun, stuck, 1, cases=cases[:1])
    assert steps["fit: 7b-fp16"].verdict == "failed"
    assert "not done after" in steps["fit: 7b-fp16"].reason
    monkeypatch.setattr(with_vllm, "LONGEST", 600.0)
    monkeypatch.setattr(with_vllm, "LEAST", 0.0)
    monkeypatch.setattr(with_vllm, "GRACE", 0.2)
    late = _go(tmp_path / "late", begun, stuck, 1, seconds=0.3, cases=cases[:1])
    assert "not done after" in late["fit: 7b-fp16"].reason  # three minutes are three minutes


def test_the_next_engine_waits_until_its_card_is_free(
    tmp_path: Path, begun: list[tuple[str, tuple[int, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = iter([4, 2**33, 2**32, 4, 4, 4])
    monkeypatch.setattr(with_vllm, "ask_card", lambda index: {"used": next(used), "total": 2**36})
    steps = _go(tmp_path, begun, good, 1, cases=CASES[:1])
    assert steps["fit: 7b-fp16"].verdict == "passed"
    assert next(used) == 4  # it looked until the card was as before, and no further


def test_what_the_worker_knows_is_found_in_its_place() -> None:
    worker = SimpleNamespace(requested_memory=5)
    wrapped = SimpleNamespace(worker=worker)
    core = SimpleNamespace(engine_core=SimpleNamespace(model_executor=SimpleNamespace(driver_worker=wrapped)))
    llm = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core))
    assert with_vllm._worker_of(llm) is worker
    assert with_vllm._worker_of(SimpleNamespace(llm_engine=SimpleNamespace(engine_core=object()))) is None


def test_the_questions_are_a_picture_and_long_texts() -> None:
    questions = with_vllm._questions(replace(CASES[0], image_tokens=64))
    assert len(questions) == 1 + CASES[0].seqs
    assert questions[0][0]["content"][0]["type"] == "image_url"
    assert questions[1] != questions[2]
