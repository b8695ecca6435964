"""What comes from outside, read within bounds of size and depth: files that people name, and JSON.

Every such file is a regular one: a pipe may never end, and a device such as /dev/zero never does.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from images.core.errors import UsageError
from images.core.os_failure import os_failure

MOST_BYTES = 64 << 20  # of a file that is read whole
_MOST_FORM = 10**6  # a number above it is no form of a document

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a disk"),
    (stat.S_ISSOCK, "a socket"),
)


def read_file(path: Path, do: str = "", most: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file; ``do`` is the remedy where there is none that can be read.

    Raises UsageError for what is not there, is no file, may not be read, or has more than ``most`` bytes.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for somebody who writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            raise not_a_file(path, mode, do)
        with os.fdopen(descriptor, "rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise unreadable(path, error, do) from error
    except ValueError as error:  # a zero byte in the name
        raise UsageError(f"{str(path)!r} is no file's name", cause=str(error), do=do) from error
    if len(raw) > most:
        raise UsageError(f"{path} is too large", cause=f"it has more than {most} bytes", do=do)
    return raw


def not_a_file(path: Path, mode: int, do: str = "") -> UsageError:
    """The error for a ``path`` whose ``mode`` is not a regular file's."""
    kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no file")
    return UsageError(f"{path} is not a file", cause=f"it is {kind}", do=do or "name a file; save a stream into one")


def unreadable(path: Path, error: OSError, do: str = "") -> UsageError:
    """The error for a file that could not be opened or read."""
    told = os_failure(error)
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
    return UsageError(
        f"cannot read {path}: {error.strerror or error}", cause=told.cause, do=do if gone and do else do or told.do
    )


def to_text(raw: bytes, name: str, do: str = "") -> str:
    """UTF-8 as text, a mark at its beginning left out. Raises UsageError with the place of what is none."""
    try:
        return raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{name} is not text in UTF-8",
            cause=f"its byte {error.start} is 0x{raw[error.start]:02x}",
            do=do or f"save it as UTF-8, as in: iconv -f LATIN1 -t UTF-8 {name}",
            where=f"{name}:{line}",
        ) from error


def parse_json(text: str | bytes, name: str, do: str = "") -> Any:
    """A JSON document. Raises UsageError for what is none, or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deep", cause="lists within lists without end", do=do) from error
    except ValueError as error:
        raise UsageError(f"{name} is not JSON", cause=str(error), do=do) from error


def read_json(path: Path, do: str = "", most: int = MOST_BYTES) -> Any:
    """The JSON document in a file. Raises UsageError as `read_file` and `parse_json` do."""
    return parse_json(to_text(read_file(path, do, most), str(path), do), str(path), do)


def refuse_newer(text: str | bytes, what: str, form: int, where: str = "", made: str = "written") -> None:
    """Raise UsageError for a JSON document that says by its "schema" that it is of a newer form than ``form``.

    ``what`` it is begins the sentence; ``made`` is how it came about. Whatever else is wrong with it is told by who
    reads it whole.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    said = content.get("schema") if isinstance(content, dict) else None
    if type(said) is int and form < said <= _MOST_FORM:
        raise UsageError(
            f"{what} is of form {said}, this checkout reads form {form}",
            cause=f"it was {made} by a newer version of Cardstock",
            do="use a newer version: git pull",
            where=where,
        )
