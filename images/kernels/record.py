"""kernel.json: what the build of a kernel wheel says of it. It lies beside the wheel wherever that goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from images.core import CheckFailed

FILE = "kernel.json"
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
WheelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\.whl$")]
Count = Annotated[int, Field(ge=0)]


class WheelRecord(BaseModel):
    """A built wheel's own account; a later build may add fields.

    ``source_sha256`` of the source distribution, ``torch`` and ``cuda`` as torch says them, ``seconds`` of the
    compilation and ``cpu_seconds`` of its compilers, ``peak_memory_bytes`` of the largest single one, ``objects`` in
    all and steps ``compiled`` (the rest came out of the compiler cache; None where that is not known), ``size`` in
    bytes and ``sha256`` of the file ``wheel``, ``audit`` the capabilities that each library's device code holds.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    form: Literal[1] = Field(alias="schema")
    package: str
    version: str
    source_sha256: Sha256
    torch: str
    cuda: str
    nvcc: str
    gcc: str
    python: str
    cxx11_abi: bool
    archs: list[str]
    env: dict[str, str]
    jobs: Count
    seconds: Annotated[float, Field(ge=0, strict=False)]
    cpu_seconds: Annotated[float, Field(ge=0, strict=False)] | None = None
    peak_memory_bytes: Count
    objects: Count
    compiled: Count | None
    wheel: WheelName
    size: Count
    sha256: Sha256
    audit: dict[str, list[str]]


def parse_record(text: str | bytes, where: str) -> WheelRecord:
    """The record of a kernel.json. Raises CheckFailed, with ``where``, for one that is none."""
    try:
        return WheelRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or FILE
        raise CheckFailed(
            f"{where} is no record of a kernel wheel",
            cause=f"{place}: {first['msg']}",
            do="remove it and build again",
        ) from error


def read_record(folder: Path) -> WheelRecord:
    """The record that lies in a folder. Raises CheckFailed where there is none, or one that makes no sense."""
    path = folder / FILE
    try:
        return parse_record(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckFailed(f"{folder} holds no {FILE}", cause=str(error), do="build the kernel again") from error
