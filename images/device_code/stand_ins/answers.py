"""What a stand-in's functions return: by library the status for "not supported", and what is no status.

Each number stands in the library's own header, in the wheels of torch 2.6.0 (CUDA 12.4) and 2.14.0 (CUDA 13.0) alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from images.device_code.stand_ins.names import StandInError

STATUS = {
    "cublas": 15,  # CUBLAS_STATUS_NOT_SUPPORTED, cublas_api.h
    "cublaslt": 15,  # the same enumeration
    "cudnn": 3000,  # CUDNN_STATUS_NOT_SUPPORTED, cudnn_graph.h, since cuDNN 9
    "cufft": 16,  # CUFFT_NOT_SUPPORTED, cufft.h
    "cufile": 5007,  # CU_FILE_PLATFORM_NOT_SUPPORTED, cufile.h: CUFILEOP_BASE_ERR + 7
    "cupti": 27,  # CUPTI_ERROR_NOT_SUPPORTED, cupti_result.h
    "curand": 999,  # CURAND_STATUS_INTERNAL_ERROR, curand.h: it has none for "not supported"
    "cusolver": 9,  # CUSOLVER_STATUS_NOT_SUPPORTED, cusolver_common.h
    "cusparse": 10,  # CUSPARSE_STATUS_NOT_SUPPORTED, cusparse.h
    "cusparselt": 10,  # the same enumeration
    "nccl": 5,  # ncclInvalidUsage, nccl.h: it has none for "not supported"
    "nvjitlink": 6,  # NVJITLINK_ERROR_INTERNAL, nvJitLink.h: it has none for "not supported"
    "nvrtc": 11,  # NVRTC_ERROR_INTERNAL_ERROR, nvrtc.h: it has none for "not supported"
    "nvshmem": 3,  # NVSHMEMX_ERROR_NOT_SUPPORTED, nvshmemx_error.h
}


class Kind(Enum):
    """How a function answers. Only ``STATUS`` and ``VALUE`` are calls: the others tell the truth, and go on."""

    STATUS = "the library's status"
    VALUE = "a number of its own"
    TEXT = "a text"
    TEXT_AT = "a text, through the second argument"
    BUFFER = "a text, into a buffer"
    NUMBER = "the library's version"
    NUMBER_AT = "the library's version, through the first argument"
    PROPERTY = "a part of the version, through the second argument"


@dataclass(frozen=True)
class Answer:
    """``value`` of a NUMBER, a NUMBER_AT or a VALUE."""

    kind: Kind
    value: int = 0


# A caller turns a status into a text at once: it must get one, or it reads from a wild address.
_TEXT = re.compile(r"\w+Get(Error|Status)(String|Name)|p?ncclGetLastError")
_TEXT_AT = ("cuptiGetResultString", "cuptiGetErrorMessage")
_BUFFER = ("cudnnGetLastErrorString",)
# What torch asks for when it is imported or says what it is (torch.backends.cudnn.version, torch.cuda.nccl.version).
_NUMBER = ("cudnnGetVersion", "cublasLtGetVersion")
_NUMBER_AT = re.compile(r"p?ncclGetVersion")
_PROPERTY = re.compile(r"\w+GetProperty")  # libraryPropertyType, library_types.h: 0 major, 1 minor, 2 patch level
# Pointers, counts and enumerations, where a status would be taken for a good one. A read of cuFile's returns bytes, or
# its error below zero.
_VALUES = (
    (re.compile(r"cuFile(Read|Write)"), -STATUS["cufile"]),
    (re.compile(r"cuFileUseCount|cu\w+Get(Cudart|MaxDevice)Version|cusparseGetMat\w+"), 0),
    (re.compile(r"nvshmem_(malloc|calloc|align|ptr)|nvshmemx_(mc_ptr|buffer_register_symmetric|init_status)"), 0),
)


def status_of(stem: str, soname: str) -> int:
    """The library's status for "not supported". Raises StandInError for a library that this page does not know."""
    if stem not in STATUS or (stem == "cudnn" and not soname.endswith(".so.9")):
        raise StandInError(f'no status for "not supported" is known of {soname}')
    return STATUS[stem]


def answer_of(function: str, version: tuple[int, ...]) -> Answer:
    """How ``function`` answers; ``version`` is the library's, as its wheel has it, () if nobody knows."""
    if _TEXT.fullmatch(function):
        return Answer(Kind.TEXT)
    if function in _TEXT_AT:
        return Answer(Kind.TEXT_AT)
    if function in _BUFFER:
        return Answer(Kind.BUFFER)
    if len(version) >= 3:
        major, minor, patch = version[:3]
        if function in _NUMBER or _NUMBER_AT.fullmatch(function):
            # CUDNN_VERSION (9.0 and later), CUBLAS_VERSION, NCCL_VERSION (2.9 and later) are all of this form.
            kind = Kind.NUMBER if function in _NUMBER else Kind.NUMBER_AT
            return Answer(kind, major * 10000 + minor * 100 + patch)
        if _PROPERTY.fullmatch(function):
            return Answer(Kind.PROPERTY)
    for pattern, value in _VALUES:
        if pattern.fullmatch(function):
            return Answer(Kind.VALUE, value)
    return Answer(Kind.STATUS)
