"""fit held against what vLLM took of cards: the records of images/proof/memory/with_vllm.py, and how they are read."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from images.proof.memory.cases import CASES, FitCase, config, engine_arguments, write_folder
from images.proof.on_card.records.reading import read_gpu_records
from images.proof.on_card.records.record import GpuRecord, Step
from images.run.fit import measured
from images.run.fit.config import from_config
from images.run.fit.measured import Held, case_sum, held_lines, table
from images.run.fit.usable_memory import GIB
from tests.helpers.fits import model, variant
from tests.helpers.nonempty import nonempty

SM80 = "cu128-vllm0.11.0-flash-attn-sm80"
TOTAL = 80 * GIB
# What vLLM 0.11 logs of 7B in 16 bits (tests/golden/memory_logs.yaml), and a peak and a context as they were on cards.
LOADED, COMPUTING, OUTSIDE = int(15.6270 * GIB), int(0.45 * GIB), int(0.55 * GIB)
CASE = replace(CASES[0], model="7b-bf16")


def _record(**facts: Any) -> GpuRecord:
    cache = int(0.6 * TOTAL) - LOADED - COMPUTING
    told: dict[str, Any] = {
        "case": asdict(CASE),
        "worker": {"loaded": LOADED, "computing": COMPUTING, "cache": cache, "tokens": cache // 57344 // 16 * 16},
        "torch": {"total": TOTAL, "outside": OUTSIDE},
        "card": {"total": TOTAL + GIB, "before": GIB, "most": GIB + int(0.6 * TOTAL) + OUTSIDE},
        **facts,
    }
    step = Step("fit: 7b-bf16", "passed", "", 30.0, told)
    return GpuRecord("NVIDIA A100", "8.0", TOTAL, "580", "", "image", SM80, "", {"vllm": "0.11.0"}, (step,))


def _records() -> list[GpuRecord]:
    kept = [one for one in read_gpu_records() if any(step.name.startswith("fit: ") for step in one.steps)]
    return [replace(_record(), name="made-up"), *kept]


@pytest.mark.parametrize("record", _records(), ids=lambda record: record.name)
def test_every_line_keeps_its_promise(record: GpuRecord) -> None:
    held = held_lines(record, variant(record.variant))
    for one in nonempty(held):
        assert one.holds, one.text()


def test_the_lines_are_those_of_the_sum() -> None:
    lines = {one.line: one for one in held_lines(_record(), variant(SM80))}
    assert set(lines) == {"loaded", "computing", "key-value cache", "outside of torch", "together"}
    assert lines["loaded"].promise == "exact"
    assert abs(lines["loaded"].said - LOADED) <= measured.EXACT
    assert table(tuple(lines.values())).count("\n") == 6


def _not_kept(**facts: Any) -> set[str]:
    return {one.line for one in held_lines(_record(**facts), variant(SM80)) if not one.holds}


def test_a_line_that_says_too_little_is_told() -> None:
    worker = {"loaded": LOADED + 3 * 2**20, "computing": 4 * GIB, "cache": 30 * GIB, "tokens": 1000}
    card = {"total": TOTAL, "before": 0, "most": TOTAL}
    torch = {"total": TOTAL, "outside": 2 * GIB}
    every = {"loaded", "computing", "key-value cache", "outside of torch", "together"}
    assert _not_kept(worker=worker, card=card, torch=torch) == every
    assert _not_kept(worker={"loaded": LOADED - 3 * 2**20}) == {"loaded"}  # exact in both directions
    assert "not high" in Held("7b", "computing", 1, GIB, "high").text()
    assert "**not exact**" in table((Held("7b", "loaded", 1, GIB, "exact"),))


def test_a_log_is_read_where_the_worker_tells_nothing() -> None:
    logged = {"loaded": int(15.63 * GIB), "graphs": 5 * GIB, "cache": 30 * GIB, "tokens": 30 * GIB // 57344}
    lines = {one.line: one for one in held_lines(_record(worker={}, logged=logged), variant(SM80))}
    assert lines["loaded"].holds  # 15.6270 is 15.63 in two digits
    assert not lines["CUDA graphs"].holds  # this case has none
    assert lines["key-value cache"].holds


def test_what_failed_or_did_not_run_is_not_held() -> None:
    record = _record()
    (step,) = record.steps
    assert held_lines(replace(record, steps=(replace(step, verdict="failed"),)), variant(SM80)) == ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_cases_checkpoint_is_the_model_that_fit_names(case: FitCase) -> None:
    read = from_config(config(case), case.model)
    named = model(case.model)
    assert read.shape == replace(named.shape, name=read.shape.name, unverified=read.shape.unverified)
    assert (read.form, read.group, read.weight_bits) == (named.form, named.group, named.weight_bits)


def test_a_case_is_loaded_with_the_settings_that_fit_adds_up(tmp_path: Path) -> None:
    case = replace(CASES[0], tp=2, graphs=True)
    write_folder(tmp_path / "model", case)
    told = engine_arguments(case, tmp_path / "model")
    assert told["load_format"] == "dummy"
    assert not (tmp_path / "model/model.safetensors").exists()
    assert json.loads((tmp_path / "model/preprocessor_config.json").read_text())["max_pixels"] == 1280 * 784
    assert (told["tensor_parallel_size"], told["enforce_eager"]) == (2, False)
    made = {line.name: line.bytes for line in case_sum(asdict(case), _record(), variant(SM80), TOTAL).lines}
    assert made["NCCL"] > 0
    assert made["CUDA graphs"] > 0


def test_the_command_tells_every_line_and_ends_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(record: GpuRecord) -> int:
        (tmp_path / "told.json").write_text(record.to_json())
        monkeypatch.setattr("sys.argv", ["measured", str(tmp_path / "told.json")])
        return measured.main()

    assert ended(_record()) == 0
    assert "7b-bf16: loaded: fit 15.6270 GiB, seen 15.6270 (exact)" in capsys.readouterr().out
    assert ended(_record(torch={"total": TOTAL, "outside": 4 * GIB})) == 1
    assert ended(replace(_record(), steps=(Step("fit: 7b-awq", "not run", "there was no time left"),))) == 1
    assert "fit: 7b-awq: not run: there was no time left" in capsys.readouterr().out
    assert ended(replace(_record(), variant="none")) == 1
