"""A run: each step has its verdict in the record at once, and its programs have the packages that they are to have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from images.proof.on_card.records.reading import read_gpu_record
from images.proof.on_card.records.record import Figure
from images.proof.on_card.runs.run import Failed, NotRun, Run, read_env
from tests.helpers.card_runs import bare_record, bare_run


def test_every_step_is_in_the_record_at_once(tmp_path: Path) -> None:
    run = bare_run(tmp_path)

    def broken() -> dict[str, object]:
        assert [step.name for step in read_gpu_record(run.out).steps] == ["good"]
        raise Failed("it is wrong", {"said": "!!!!"})

    def impossible() -> dict[str, object]:
        raise NotRun("no time")

    run.step("good", lambda: {"checks": 3})
    run.step("bad", broken)
    run.step("odd", lambda: {"x": 1 / 0})
    run.step("none", impossible)
    found = {step.name: step for step in read_gpu_record(run.out).steps}
    assert [step.verdict for step in found.values()] == ["passed", "failed", "failed", "not run"]
    assert found["bad"].facts == {"said": "!!!!"}
    assert "ZeroDivisionError" in found["odd"].reason
    run.step("bad", dict)
    assert [step.verdict for step in read_gpu_record(run.out).steps if step.name == "bad"] == ["passed"]


def test_a_figure_taken_again_gives_way(tmp_path: Path) -> None:
    run = bare_run(tmp_path)
    run.add([Figure("decode", 1.0, "tokens/s", {"batch": "1"}), Figure("decode", 2.0, "tokens/s", {"batch": "16"})])
    run.add([Figure("decode", 3.0, "tokens/s", {"batch": "1"})])
    assert sorted(one.value for one in read_gpu_record(run.out).figures) == [2.0, 3.0]


def test_the_steps_asked_for_are_run(tmp_path: Path) -> None:
    run = replace(bare_run(tmp_path), only=("vllm*",))
    run.step("canary", dict)
    run.step("vllm: tiny", dict)
    assert [step.name for step in run.record.steps] == ["vllm: tiny"]


def test_a_steps_program_uses_the_packages_of_its_content(tmp_path: Path) -> None:
    site = tmp_path / "slimmed"
    site.mkdir()
    (site / "whose.py").write_text("import json, sys\njson.dump({'path': __file__}, open(sys.argv[-1], 'w'))\n")
    run = Run(bare_record(), tmp_path / "record.json", tmp_path, {"slimmed": site, "untouched": None})
    assert run.worker("slimmed", ["whose"]) == {"path": str(site / "whose.py")}
    with pytest.raises(Failed, match=r"-m ended with 1: .*No module named whose"):
        run.worker("untouched", ["whose"])
    assert run.env("slimmed")["TRITON_CACHE_DIR"] != run.env("untouched")["TRITON_CACHE_DIR"]


def test_the_image_says_of_itself_what_preflight_asks() -> None:
    env = read_env("cu130-transformers5.24.0-sdpa-sm75")
    assert env["CARDSTOCK_ARCHS"] == "7.5"
    assert env["CARDSTOCK_ENGINE"] == "transformers"
    assert "-sm90" in env["CARDSTOCK_IMAGES"]
    assert not [name for name in env if "PATH" in name or "CACHE" in name]
