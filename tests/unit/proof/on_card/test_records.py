"""The records of runs on real cards: every committed one reads, and a broken one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from images.core.errors import UsageError
from images.proof.on_card.records import (
    FOLDER,
    Figure,
    GpuRecord,
    Step,
    read_gpu_record,
    read_gpu_records,
    records_of_variant,
)

RECORD = GpuRecord(
    card="NVIDIA H200",
    capability="9.0",
    memory=143771 * 2**20,
    driver="580.159.04",
    created="2026-11-21T16:00:00+00:00",
    place="packages",
    variant="cu130-vllm0.25.1-flash-attn-sm90",
    input_hash="ab" * 32,
    versions={"torch": "2.11.0+cu130"},
    steps=(Step("canary", "passed", facts={"error": 1e-6}), Step("server", "not run", "no time")),
    figures=(Figure("decode", 150.0, "tokens/s", {"batch": "1", "engine": "vllm"}, (149.0, 150.0, 151.0)),),
)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_committed_records_read_and_nothing_failed(path: Path) -> None:
    record = read_gpu_record(path)
    assert record.card.startswith("NVIDIA ")
    assert record.memory > 2**34
    assert record.versions["torch"]
    assert "failed" not in {step.verdict for step in record.steps}
    for figure in record.figures:
        assert figure.value > 0, figure.name
        assert not figure.runs or min(figure.runs) <= figure.value <= max(figure.runs), figure.name


def test_old_records_get_the_common_header() -> None:
    found = {record.name: record for record in read_gpu_records()}
    old = found["h200-torch-2.11.0-stripped"]
    assert (old.card, old.capability, old.driver, old.memory) == ("NVIDIA H200", "9.0", "580.159.04", 143771 * 2**20)
    assert old.ok
    assert "steps 19 passed" in old.evidence()
    assert old.versions["transformers"]
    assert not found["h200-fit-memory"].ok  # it measures, and holds nothing true or false


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(RECORD.to_json())
    assert read_gpu_record(path) == replace(RECORD, name="one")
    assert json.loads(path.read_text())["ok"] is True
    assert read_gpu_record(path).evidence() == (
        "NVIDIA H200, driver 580.159.04: steps 1 passed, 1 not run (records/cards/one.json)"
    )


def test_figures_and_records_are_found_by_what_they_are_of() -> None:
    assert RECORD.find_figure("decode", batch="1") is RECORD.figures[0]
    assert RECORD.find_figure("decode", batch="16") is None
    assert records_of_variant([RECORD], RECORD.variant) == (RECORD,)
    assert records_of_variant([RECORD], RECORD.variant, "cd" * 32) == ()


def test_a_failed_step_is_not_ok() -> None:
    assert not replace(RECORD, steps=(*RECORD.steps, Step("x", "failed", "why"))).ok
    assert not replace(RECORD, steps=()).ok


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"schema": 9}, "schema 9"),
        ({"colour": "red"}, "colour"),
        ({"steps": [{"name": "x", "verdict": "perhaps"}]}, "verdict"),
        ({"memory": "much"}, "memory"),
    ],
)
def test_a_broken_record_is_refused(tmp_path: Path, change: dict[str, object], cause: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**json.loads(RECORD.to_json()), **change}))
    with pytest.raises(UsageError) as error:
        read_gpu_record(path)
    assert cause in str(error.value.cause)
    path.write_text("[]")
    with pytest.raises(UsageError):
        read_gpu_record(path)
