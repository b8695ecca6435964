"""Where a model's weights are: a folder that has been looked at, or a repository of a hub."""

from __future__ import annotations

import json
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from images.core import UsageError, not_a_file, read_json
from images.run.fit import is_repository, published, refuse_others, typed_name

_INDEX = "model.safetensors.index.json"
# A safetensors file begins with the length of its JSON header; longer ones are not written (safetensors: 100 MB).
_MOST_HEADER = 100_000_000
_AGAIN = "download it anew"
# Where a printed line says that a model lies of which nothing is known here.
PLACES = "/path/to"


@dataclass(frozen=True)
class Source:
    """A model: ``folder`` on the engine's machine, or ``repository`` of a hub; ``name`` is what the API calls it."""

    name: str
    folder: str = ""
    repository: str = ""


def find_source(text: str) -> Source:
    """A folder, a repository such as Qwen/Qwen2.5-VL-3B-Instruct-AWQ, or a short name such as 3b-awq.

    Raises UsageError for what is none of them, and for a folder that lacks something or is broken.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return Source(path.resolve().name, folder=str(check_folder(path.resolve())))
    if path.exists():
        raise UsageError(f"{path} is not a folder", do="--model FOLDER, with config.json and the weights in it")
    model = published(text)
    if model is None and is_repository(typed_name(text)):
        refuse_others(text)
        return Source(typed_name(text), repository=typed_name(text))
    if model is None:
        raise UsageError(
            f"no folder and no model is called {text!r}",
            do="7b-awq, qwen2-vl-7b and their like (docs/fit.md); a repository OWNER/NAME; or a model's folder",
        )
    if not model.source:
        raise UsageError(
            f"{model.name} has no official repository", do="name one (OWNER/NAME), or the folder it was downloaded to"
        )
    return Source(model.source, repository=model.source)


def printed_source(text: str) -> Source:
    """The same for a line that is only printed: a model without a repository has a place that is to be put in.

    Raises UsageError as `find_source` does.
    """
    model = None if "/" in text or Path(text).expanduser().exists() else published(text)
    if model is not None and not model.source:
        return Source(model.name, f"{PLACES}/{model.name}")
    return find_source(text)


def check_folder(folder: Path) -> Path:
    """The folder, if a server could load it: config.json, and every weights file there and whole. Raises UsageError."""
    if not (folder / "config.json").is_file():
        below = sorted(path.parent.name for path in folder.glob("*/config.json"))
        raise UsageError(
            f"{folder} holds no config.json",
            cause=f"models are in it: {', '.join(below[:5])}" if below else "it is no model's folder, or not complete",
            do=f"--model {folder / below[0]}" if below else "name the folder that the model was downloaded to",
        )
    files = _weights(folder)
    if not files:
        raise UsageError(f"{folder} holds no weights (*.safetensors)", do=f"{_AGAIN}: only part of the model is there")
    for name in files:
        check_weights(folder / name)
    return folder


def _weights(folder: Path) -> list[str]:
    """Names of the weights files: those of the index where there is one, else those that are there."""
    index = folder / _INDEX
    if not index.is_file():
        return sorted(path.name for path in folder.glob("*.safetensors"))
    try:
        return sorted(set(read_json(index, _AGAIN)["weight_map"].values()))
    except (KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{index} is not an index of weights", cause=repr(error), do=_AGAIN) from error


def check_weights(path: Path) -> None:
    """Raises UsageError unless the file is as long as its own header says; the weights themselves are not read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise not_a_file(path, status.st_mode, _AGAIN)
        size = status.st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            header = json.loads(file.read(length)) if 0 < length <= min(size - 8, _MOST_HEADER) else None
        tensors = {} if header is None else dict(header.items())
        ends = [one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__"]
    except OSError as error:
        raise UsageError(f"{path} cannot be read", cause=error.strerror or "", do=_AGAIN) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is not a safetensors file", cause=repr(error), do=_AGAIN) from error
    if header is None:
        raise UsageError(f"{path} is not a safetensors file, or cut off in its header", do=_AGAIN)
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        what = "is cut off" if size < wanted else "is longer than its header says"
        raise UsageError(f"{path} {what}", cause=f"it has {size} bytes, its header says {wanted}", do=_AGAIN)
