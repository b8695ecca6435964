"""compiled.json: what compiled code is, in full, and how it was made. It lies beside the archive wherever that goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from images.compiled.key import FORM, CompiledKey, key_of_facts
from images.core import Unsafe, read_file, refuse_newer

FILE = "compiled.json"
ARCHIVE = "cache.tar.gz"
MOST = 1 << 20  # bytes of a compiled.json; they have two thousand

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,200}$")]
Value = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,4000}$")]
Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Bytes = Annotated[int, Field(ge=0, le=1 << 40)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class KeyFacts(_Part):
    """The facts of a `CompiledKey`."""

    form: Literal[1]
    image: Digest
    capability: Annotated[str, StringConstraints(pattern=r"^([0-9]{1,2}\.[0-9]|cpu)$")]
    card: Text
    model: Sha256
    place: Text
    flags: Annotated[dict[Text, Value], Field(max_length=200)]
    env: Annotated[dict[Text, Value], Field(max_length=200)]


class CompiledRecord(_Part):
    """What lies in an archive, by whom it can be used, and how it was made.

    ``id`` is what the engine called the image: the digest of its configuration, or of its manifest. ``sha256`` and
    ``size`` are of the archive, ``files`` and ``unpacked`` (bytes) of what is in it. ``called`` is the model as it was
    asked for, ``variant`` the image's; ``driver`` "" where no card was used; ``seconds`` passed from the container's
    start, with empty caches, until it was healthy.
    """

    form: Literal[1] = Field(alias="schema")
    facts: KeyFacts = Field(alias="key")
    id: Digest
    sha256: Sha256
    size: Bytes
    files: Annotated[int, Field(ge=1, le=10**6)]
    unpacked: Bytes
    variant: Text
    called: Text
    driver: Text
    seconds: Annotated[float, Field(ge=0, le=10**6, strict=False)]
    made: Time

    @property
    def key(self) -> CompiledKey:
        """What it is kept by."""
        return key_of_facts(self.facts.model_dump())

    def to_json(self) -> str:
        """As `parse_record` reads it."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True) + "\n"


def make_record(key: CompiledKey, **said: object) -> CompiledRecord:
    """The record of ``key``; ``said`` are its other fields. Raises Unsafe for what no record may say."""
    return parse_record(json.dumps({"schema": FORM, "key": key.facts(), **said}), "what was made here")


def parse_record(text: str | bytes, where: str) -> CompiledRecord:
    """The record of a compiled.json. Raises Unsafe for one that is none, UsageError for one of a newer version."""
    try:
        return CompiledRecord.model_validate_json(text)
    except ValidationError as error:
        refuse_newer(text, "the compiled code", FORM, where, "made")
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or FILE
        raise Unsafe(
            "what is said of the compiled code is not what such a record is",
            cause=f"{place}: {first['msg']}",
            do="nothing of it was used; ./inv warm makes it anew",
            where=where,
        ) from error


def read_record(folder: Path) -> CompiledRecord:
    """The record that lies in a folder. Raises as `parse_record`, UsageError where there is none."""
    return parse_record(read_file(folder / FILE, "./inv warm makes it", MOST), str(folder / FILE))
