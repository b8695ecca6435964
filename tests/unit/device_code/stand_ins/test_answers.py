"""Every status is an error, and no library is stood in for whose status nobody read."""

from __future__ import annotations

import pytest

from images.device_code.stand_ins.answers import STATUS, Answer, Kind, answer_of, status_of
from images.device_code.stand_ins.names import StandInError
from tests.helpers.nonempty import nonempty


def test_every_status_is_an_error() -> None:
    assert all(status > 0 for status in nonempty(STATUS.values()))
    assert status_of("cudnn", "libcudnn_ops.so.9") == 3000


@pytest.mark.parametrize(("stem", "soname"), [("cudnn", "libcudnn.so.8"), ("cudart", "libcudart.so.12"), ("", "")])
def test_a_library_that_is_not_known(stem: str, soname: str) -> None:
    with pytest.raises(StandInError, match='no status for "not supported" is known'):
        status_of(stem, soname)


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ("cufftPlan1d", Answer(Kind.STATUS)),
        ("cusparseGetErrorName", Answer(Kind.TEXT)),
        ("cusparseLtGetErrorString", Answer(Kind.TEXT)),
        ("cublasGetStatusString", Answer(Kind.TEXT)),
        ("nvrtcGetErrorString", Answer(Kind.TEXT)),
        ("pncclGetLastError", Answer(Kind.TEXT)),
        ("cuptiGetLastError", Answer(Kind.STATUS)),
        ("cuFileGetParameterString", Answer(Kind.STATUS)),
        ("cublasLtGetVersion", Answer(Kind.NUMBER, 120405)),
        ("cublasLtGetCudartVersion", Answer(Kind.VALUE, 0)),
        ("cusparseGetMatType", Answer(Kind.VALUE, 0)),
        ("cuFileWriteAsync", Answer(Kind.STATUS)),
        ("cufftGetProperty", Answer(Kind.PROPERTY)),
        ("nvshmemx_init_status", Answer(Kind.VALUE, 0)),
    ],
)
def test_how_a_function_answers(function: str, answer: Answer) -> None:
    assert answer_of(function, (12, 4, 5, 8)) == answer


@pytest.mark.parametrize("function", ["cufftGetProperty", "cudnnGetVersion", "ncclGetVersion"])
def test_without_a_version_there_is_none_to_tell(function: str) -> None:
    assert answer_of(function, (12, 4)) == Answer(Kind.STATUS)
