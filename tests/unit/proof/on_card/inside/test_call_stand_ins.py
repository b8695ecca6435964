"""Calling stand-ins on purpose: judged by what torch does and by what is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from images.device_code.stand_ins.source import SAID as SAID_BY_ALL
from images.proof.on_card.inside import call_stand_ins
from images.proof.on_card.inside.call_stand_ins import SAID, attempt, judge

FILE = "nvidia/cufft/lib/libcufft.so.11"
LINE = f"{SAID}cufftExecC2C of libcufft.so.11, for Fourier transforms: this image leaves that library out"


def test_the_program_stands_alone_and_says_the_same_sentence() -> None:
    assert SAID == SAID_BY_ALL
    text = Path(call_stand_ins.__file__).read_text(encoding="utf-8")
    assert "from images" not in text


def refused() -> bool:
    os.write(2, f"{LINE}\n".encode())
    raise RuntimeError("cuFFT error: CUFFT_NOT_SUPPORTED")


def test_what_a_library_says_on_stderr_is_found() -> None:
    row = attempt(refused)
    assert (row["raised"], row["said"], row["right"]) == ("RuntimeError", [LINE], None)
    assert attempt(lambda: True)["right"] is True
    sys.stderr.write("stderr is itself again\n")


@pytest.mark.parametrize(
    ("row", "said_before", "there", "verdict"),
    [
        ({"right": None, "runtime_error": True, "said": [LINE]}, False, [FILE], "stand-in"),
        ({"right": None, "runtime_error": True, "said": []}, True, [FILE], "stand-in"),
        ({"right": None, "runtime_error": True, "said": []}, False, [FILE], "the stand-in said nothing"),
        ({"right": None, "runtime_error": False, "said": [LINE]}, False, [FILE], "torch raised no RuntimeError"),
        ({"right": True, "said": []}, False, [FILE], "torch raised no RuntimeError"),
        ({"right": True, "said": []}, False, [], "real"),
        ({"right": False, "said": []}, False, [], "the real library gave no right answer"),
    ],
)
def test_a_case_is_a_stand_ins_or_the_real_librarys(
    row: dict[str, object], said_before: bool, there: list[str], verdict: str
) -> None:
    assert judge(row, "libcufft", there, said_before) == verdict
