"""What programs inside of an image print: the last line is the answer, and one that is none is told with the way on."""

from __future__ import annotations

import json

import pytest

from images.core.errors import CheckFailed
from images.proof.smoke.kernels import COMPILER, MACHINE_CODE, Program, read_told


def test_the_last_line_is_the_answer() -> None:
    counted = {"libraries": {"a.so": {}}, "unread": []}
    assert read_told(MACHINE_CODE, f"a warning\n{json.dumps(counted)}\n", "") == counted
    compiled = {"triton": "3.8.0", "results": [{}, {}]}
    assert read_told(COMPILER, json.dumps(compiled), "", 2) == compiled


@pytest.mark.parametrize(
    ("program", "out", "count", "cause"),
    [
        (COMPILER, "", 1, "IndexError"),
        (COMPILER, "Killed", 1, "JSONDecodeError"),
        (COMPILER, '{"why": "no Triton"}', 1, "KeyError: 'results'"),
        (COMPILER, '{"results": 3}', 1, "TypeError"),
        (COMPILER, '{"results": [{}]}', 2, "results in its answer: 1, not 2"),
        (MACHINE_CODE, '{"libraries": {}}', None, "libraries in its answer: 0"),
        (MACHINE_CODE, "[]", None, "TypeError"),
    ],
)
def test_what_is_no_answer_is_told_by_the_program_that_was_asked(
    program: Program, out: str, count: int | None, cause: str
) -> None:
    with pytest.raises(CheckFailed) as caught:
        read_told(program, out, "", count)
    assert (caught.value.what, caught.value.do) == (program.cannot, program.do)
    assert cause in caught.value.cause


def test_what_the_container_said_is_the_cause() -> None:
    with pytest.raises(CheckFailed) as caught:
        read_told(COMPILER, "", "Segmentation fault", 1)
    assert caught.value.cause == "Segmentation fault"
