"""The records of runs on real cards: every committed one reads, and a broken one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from images.core.errors import UsageError
from images.proof.on_card.records.bounds import MOST_BYTES
from images.proof.on_card.records.reading import FOLDER, read_gpu_record, read_gpu_records
from images.proof.on_card.records.record import Figure, GpuRecord, Step, records_of_variant

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
    steps=(Step("transformers: tiny", "passed", facts={"error": 1e-6}), Step("vllm: 3b", "not run", "no time")),
    figures=(Figure("decode", 150.0, "tokens/s", {"batch": "1", "engine": "vllm"}, (149.0, 150.0, 151.0)),),
    image_digest=f"sha256:{'12' * 32}",
    image_id=f"sha256:{'34' * 32}",
    engine="Docker 29.1.0",
    given="cdi",
)


NESTED: dict[str, object] = {}
for _ in range(30):
    NESTED = {"x": NESTED}


# What failed on a card and is told: a fault that the images have had mended since, and no run has shown it yet.
TOLD = {"h200-acted-cu124-vllm0.8.5.post1": {"T4: tiny", "2080-Ti: tiny", "V100: tiny, not quantised"}}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_committed_records_read_and_nothing_failed_but_what_is_told(path: Path) -> None:
    record = read_gpu_record(path)
    assert record.card.startswith("NVIDIA ")
    if not path.name.startswith("h200-smoke-"):  # whose levels tell neither as a fact of the run
        assert record.memory > 2**34
        assert record.versions["torch"]
    assert {step.name for step in record.steps if step.verdict == "failed"} == TOLD.get(path.stem, set())
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


def test_a_measurement_of_starts_proves_nothing_of_its_image() -> None:
    assert replace(RECORD, steps=(Step("start: before, kept caches, 1", "passed"),)).measures
    assert not RECORD.measures


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


def test_a_record_of_the_first_form_still_reads(tmp_path: Path) -> None:
    path = tmp_path / "first.json"
    new = ("image_digest", "image_id", "engine", "given")
    first = {key: value for key, value in json.loads(RECORD.to_json()).items() if key not in new}
    path.write_text(json.dumps({**first, "schema": 1}))
    read = read_gpu_record(path)
    assert (read.schema, read.image_digest, read.image_id, read.engine, read.given) == (1, "", "", "", "")
    assert json.loads(read.to_json())["schema"] == 2  # what is written again is of today's form


def test_a_record_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(UsageError, match="too large"):
        read_gpu_record(path)


def test_only_a_model_that_answered_counts_as_served() -> None:
    assert RECORD.served
    assert not replace(RECORD, steps=(Step("stack: image", "passed"), Step("vllm: tiny image", "failed"))).served
    assert replace(RECORD, steps=(Step("vllm: tiny image", "passed"),)).served


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"schema": 9}, "schema 9"),
        ({"colour": "red"}, "colour"),
        ({"steps": [{"name": "x", "verdict": "perhaps"}]}, "verdict"),
        ({"memory": "much"}, "memory"),
        ({"card": "H200](javascript:x)"}, "card"),
        ({"card": "\x1b[31mH200"}, "card"),
        ({"driver": "580 | x"}, "driver"),
        ({"created": "yesterday"}, "created"),
        ({"variant": "../x"}, "variant"),
        ({"input_hash": "ab"}, "input_hash"),
        ({"image_digest": "sha256:12"}, "image_digest"),
        ({"engine": "`Docker`"}, "engine"),
        ({"given": "by hand"}, "given"),
        ({"place": "elsewhere"}, "place"),
        ({"versions": {"torch": "2|1"}}, "versions"),
        ({"steps": [{"name": "x", "verdict": "passed"}] * 201}, "201 steps"),
        ({"notes": ["x" * 40_001]}, "40001 characters"),
        ({"figures": [{"name": "x", "value": 1, "unit": "s", "runs": [0.0] * 50_001}]}, "more than 50000 values"),
        ({"steps": [{"name": "x", "verdict": "passed", "facts": NESTED}]}, "nested deeper"),
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


def smoke_record(**changes: object) -> dict[str, object]:
    levels = [
        {"number": 1, "name": "audit", "status": "passed", "reason": "", "seconds": 20.0, "facts": {}},
        {
            "number": 4,
            "name": "server",
            "status": "passed",
            "reason": "",
            "seconds": 70.0,
            "facts": {"device": "Tesla T4"},
        },
    ]
    told: dict[str, object] = {
        "variant_id": "v", "image": "repo:v", "image_id": f"sha256:{'b' * 64}", "created": "2026-11-28T05:22:15Z",
        "card": "Tesla T4", "driver": "535.104.05", "engine_version": "26.1.5", "levels": levels, "ok": True,
    }  # fmt: skip
    return told | changes


def test_a_record_of_smoke_on_a_card_is_one_of_the_image_in_a_container(tmp_path: Path) -> None:
    file = tmp_path / "t4.json"
    file.write_text(json.dumps(smoke_record(input_hash="a" * 64)))
    read = read_gpu_record(file)
    assert (read.place, read.variant, read.input_hash, read.engine) == ("image", "v", "a" * 64, "Docker 26.1.5")
    assert (read.ok, read.served, [step.name for step in read.steps]) == (True, True, ["audit", "server"])
    file.write_text(json.dumps(smoke_record()))
    assert read_gpu_record(file).input_hash == ""  # as older ones


def test_a_server_on_the_cpu_is_no_proof_on_a_card(tmp_path: Path) -> None:
    file = tmp_path / "t4.json"
    levels = [
        {"number": 4, "name": "server", "status": "passed", "reason": "", "seconds": 1, "facts": {"device": "cpu"}}
    ]
    file.write_text(json.dumps(smoke_record(levels=levels)))
    assert not read_gpu_record(file).served
    file.write_text(json.dumps(smoke_record(card=None)))
    with pytest.raises(UsageError, match="no card was there"):
        read_gpu_record(file)
