"""What another machine's engine has already: layers that are not sent. Pure but for the reading of the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from images.core import UsageError, read_file
from images.distribution.saved import LAYERS_MAX, Digest, Part, PlainText, Saved

_HAVE_MAX = 16 << 20  # `docker image inspect` prints about 10 kB an image

Chain = Annotated[tuple[Digest, ...], Field(min_length=1, max_length=LAYERS_MAX)]


class Have(Part):
    """What `./inv load --list` prints: the layers of each image that an engine has, as diff ids, base first."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    engine: PlainText
    chains: Annotated[tuple[Chain, ...], Field(max_length=1000)]

    def to_json(self) -> str:
        """As it is printed."""
        return self.model_dump_json(by_alias=True, indent=1)


class Inspected(BaseModel):
    """What is needed of an image in what `docker image inspect` prints."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    class Root(BaseModel):
        model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
        layers: Annotated[tuple[Digest, ...], Field(alias="Layers", max_length=LAYERS_MAX)] = ()

    root: Annotated[Root, Field(alias="RootFS")]


_INSPECTED = TypeAdapter(Annotated[tuple[Inspected, ...], Field(max_length=1000)])


def read_have(path: Path) -> Have:
    """What another machine has, by the list of `./inv load --list`, by what `docker image inspect` printed there, or by
    the index of what was saved for it before and is loaded there. Raises UsageError for a file that is none of them.
    """
    do = "on the other machine: ./inv load --list > have.json, or docker image inspect $(docker images -q) > have.json"
    raw = read_file(path, do, _HAVE_MAX)
    try:
        if raw.lstrip()[:1] == b"[":
            chains = [one.root.layers for one in _INSPECTED.validate_json(raw) if one.root.layers]
            return Have.model_validate({"schema": 1, "engine": "", "chains": tuple(chains)})
        if b'"pieces"' in raw:
            chains = [image.layers for image in Saved.model_validate_json(raw).images]
            return Have.model_validate({"schema": 1, "engine": "", "chains": tuple(chains)})
        return Have.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:200]
        raise UsageError(
            f"{path} is no list of layers", cause=f"{place + ': ' if place else ''}{first['msg']}", do=do
        ) from error


def common(chains: Sequence[Sequence[str]], layers: Sequence[str]) -> int:
    """How many layers, from the base on, are the same in one of the chains: an engine knows a layer by all below it."""
    most = 0
    for chain in chains:
        same = next((n for n, (a, b) in enumerate(zip(chain, layers, strict=False)) if a != b), None)
        most = max(most, min(len(chain), len(layers)) if same is None else same)
    return most
