"""Levels 3 and 4 count the calls of stand-ins: by the file that they write and by what they say in a log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from images.core import process
from images.core.errors import CheckFailed
from images.device_code.stand_ins.made import Made, StandIn, dumps
from images.device_code.stand_ins.source import CALLS
from images.proof.smoke.record import STAND_INS_CALLED, LevelResult
from images.proof.smoke.stand_in_calls import COUNT_CALLS, FILE, READ_SCRIPT, Call, StandInCalls, read_calls, said_in
from tests.unit.proof.smoke.test_record import record

USES = (("nvidia/cufft/lib/libcufft.so.11", "Fourier transforms (torch.fft)"),)
LINE = (
    "cardstock: stand-in called: cufftExecC2C of libcufft.so.11, for Fourier transforms (torch.fft): this image leaves "
    "that library out; the same image with -whole at the end of its tag has it (./inv build --whole)"
)


def printed(*calls: tuple[str, int]) -> str:
    return "a warning\n" + json.dumps({"calls": calls, "stand-ins": USES}) + "\n"


def test_no_call_is_said_in_figures_and_fails_nothing() -> None:
    found = read_calls(printed(), "INFO: started\n")
    assert (found.fact, found.complaint()) == ("0 calls of 1 stand-in", "")
    assert StandInCalls((), USES * 5).fact == "0 calls of 5 stand-ins"


def test_a_call_names_library_function_what_for_and_what_to_do() -> None:
    found = read_calls(printed(("libcufft.so.11 cufftCreate", 1), ("libcufft.so.11 cufftExecC2C", 3)))
    assert found.fact == "4 calls of 1 stand-in"
    told = found.complaint()
    assert "cufftCreate of libcufft.so.11 (Fourier transforms (torch.fft)), once" in told
    assert "cufftExecC2C of libcufft.so.11 (Fourier transforms (torch.fft)), 3 times" in told
    assert "the row of matrix.yaml (stand_ins) is wrong" in told
    assert "--whole" in told


def test_many_functions_are_told_in_few_words() -> None:
    found = read_calls(printed(*((f"libcufft.so.11 cufft{at}", 1) for at in range(9))))
    assert "and 4 more functions" in found.complaint()


def test_a_sentence_in_a_log_counts_where_the_file_has_no_line_of_it() -> None:
    log = f"(EngineCore pid=71) {LINE}\n{LINE}\n"
    assert said_in(log) == [Call("libcufft.so.11", "cufftExecC2C")]
    assert read_calls(printed(), log).fact == "1 call of 1 stand-in"
    assert read_calls(printed(("libcufft.so.11 cufftExecC2C", 2)), log).fact == "2 calls of 1 stand-in"
    assert said_in("stand-ins are documented\ncardstock: preflight\n") == []


@pytest.mark.parametrize("text", ["", "Traceback: no such thing", "{}", '{"calls": [3], "stand-ins": []}'])
def test_an_answer_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(CheckFailed, match="cannot be told"):
        read_calls(text)


def test_the_reader_counts_in_the_container_whatever_the_file_holds(tmp_path: Path) -> None:
    """In this Python, with the stand-ins' distribution beside it; a file of another's making does no harm."""
    info = tmp_path / "cardstock_stand_ins-0.1.0.dist-info"
    info.mkdir()
    row = StandIn(USES[0][0], "libcufft.so.11", USES[0][1], 1, {}, 1, "0" * 64, 2, "0" * 64, "nvidia-cufft-cu12 11")
    (info / "stand_ins.json").write_text(dumps(Made((row,))))
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: cardstock-stand-ins\nVersion: 0.1.0\n")
    calls = tmp_path / "calls"

    def counted() -> StandInCalls:
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = process.run(["python3", "-c", READ_SCRIPT, str(calls)], env=env)
        return read_calls(done.out)

    assert counted() == StandInCalls((), USES)
    calls.write_bytes(b"libcufft.so.11 cufftCreate\n" * 3 + b"\xff\xfe odd\n" + b"x" * 100_000 + b"\n")
    assert counted().calls[0] == Call("x" * 300, "others", 333)
    assert Call("libcufft.so.11", "cufftCreate", 3) in counted().calls
    calls.write_text("".join(f"lib f{at}\n" for at in range(1000)))
    assert len(counted().calls) <= 201
    assert sum(call.count for call in counted().calls) == 1000


def test_the_containers_are_told_where_to_write() -> None:
    assert COUNT_CALLS == {CALLS: FILE}


def test_the_evidence_says_how_often() -> None:
    level = LevelResult(3, "canary", "passed", facts={"device": "cpu", STAND_INS_CALLED: "0 calls of 5 stand-ins"})
    assert record(level).evidence() == "canary: passed (cpu, 0 calls of 5 stand-ins)"
