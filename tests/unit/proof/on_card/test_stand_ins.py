"""On a card: what was called is counted over all processes, and calling on purpose is judged by what torch does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from images.device_code.stand_ins.made import Made, StandIn, dumps
from images.device_code.stand_ins.source import CALLS
from images.proof.on_card import prove, stand_ins
from images.proof.on_card.inside.call_stand_ins import SAID
from images.proof.on_card.runs.run import Failed, NotRun, Run
from tests.helpers.card_runs import bare_record

FILE = "nvidia/cufft/lib/libcufft.so.11"
ROW = StandIn(FILE, "libcufft.so.11", "Fourier transforms", 1, {}, 1, "0" * 64, 2, "0" * 64, "nvidia-cufft-cu12 11")
LINE = f"{SAID}cufftExecC2C of libcufft.so.11, for Fourier transforms: this image leaves that library out"


def run_with(tmp_path: Path, *rows: StandIn) -> Run:
    """A run on packages that have these stand-ins."""
    site = tmp_path / "site"
    info = site / "cardstock_stand_ins-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "stand_ins.json").write_text(dumps(Made(rows)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Run(bare_record(), tmp_path / "record.json", scratch, {"slimmed": site})


def test_every_process_is_told_where_to_note_a_call(tmp_path: Path) -> None:
    run = run_with(tmp_path, ROW)
    assert run.env("slimmed")[CALLS] == str(run.calls_file("slimmed"))


def test_none_called_is_a_figure(tmp_path: Path) -> None:
    facts = stand_ins.none_called(run_with(tmp_path, ROW), "slimmed")
    assert facts["stand-ins called"] == "0 calls of 1 stand-in"
    assert facts["stand-ins"] == [FILE]


def test_a_call_by_the_file_or_by_a_servers_log_fails(tmp_path: Path) -> None:
    run = run_with(tmp_path, ROW)
    run.calls_file("slimmed").write_text("libcufft.so.11 cufftCreate\n" * 2)
    (run.scratch / "server-8100.log").write_text(f"(EngineCore pid=2) {LINE}\n")
    with pytest.raises(Failed, match=r"a stand-in was called: cufftCreate of libcufft\.so\.11 .*2 times") as caught:
        stand_ins.none_called(run, "slimmed")
    assert caught.value.args[1]["stand-ins called"] == "3 calls of 1 stand-in"
    assert "cufftExecC2C" in caught.value.args[0]


def test_packages_without_any_are_not_counted(tmp_path: Path) -> None:
    with pytest.raises(NotRun, match="no stand-ins are among the packages of slimmed"):
        stand_ins.none_called(run_with(tmp_path), "slimmed")
    inside = replace(run_with(tmp_path / "x"), sites={"image": None})
    with pytest.raises(NotRun, match="of image"):
        stand_ins.called_on_purpose(inside, "image")


def test_the_plan_counts_before_it_calls_on_purpose(tmp_path: Path) -> None:
    run = replace(run_with(tmp_path, ROW), paths={"tiny": tmp_path, "3b": tmp_path})
    names = [name for name, _ in prove.plan(run, "", 1)]
    counted, called = names.index("stand-ins: none called, slimmed"), names.index("stand-ins: called on purpose")
    assert names.index("vllm: 3b") < counted < called
