"""Libraries out of a folder, a wheel or a stream of tar, one at a time: nothing is unpacked beyond one file."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from images.device_code.elf import MAGIC
from images.device_code.fatbin import FatbinError, Library, read

Found = Iterator[tuple[str, Library | FatbinError]]

# Names that a library or a program has: lib.so, lib.so.12, program, python3.11, engine.bin.
_CANDIDATE = re.compile(r"[^.]+|.*\.(so|bin|run|node)|.*\.so\.[^/]*|.*\.\d+")
_CHUNK, _BLOCK = 1 << 20, 512
_HELD = 4 << 20  # bytes of a member held in memory; a larger one goes to one temporary file
_PSEUDO = ("proc/", "sys/", "dev/")


def may_hold_code(name: str) -> bool:
    """Whether a file of this name can be a library or a program."""
    return _CANDIDATE.fullmatch(name.rpartition("/")[2]) is not None


def read_file(path: Path, name: str) -> Found:
    """One file, as (name, what is in it)."""
    try:
        yield name, read(path)
    except FatbinError as error:
        yield name, error


def read_folder(folder: Path) -> Found:
    """Every library below ``folder``, named from there; links are not followed. Raises OSError for one not readable."""
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif may_hold_code(entry.name) and entry.is_file(follow_symlinks=False):
                    name = os.path.relpath(entry.path, folder)
                    yield from (found for found in read_file(Path(entry.path), name) if _is_elf(found))


def read_wheel(path: Path) -> Found:
    """Every library in a wheel or other zip file. Raises zipfile.BadZipFile or OSError for a broken one."""
    with zipfile.ZipFile(path) as wheel, tempfile.NamedTemporaryFile() as spare:
        for member in wheel.infolist():
            if member.is_dir() or not may_hold_code(member.filename):
                continue
            try:
                with wheel.open(member) as stream:
                    yield from _read_stream(member.filename, stream, member.file_size, spare)
            except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise zipfile.BadZipFile(f"{member.filename}: {error}") from error


class _Tail:
    """A stream that remembers its last block: tarfile takes one that was cut between two files for a whole one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._last = b""

    def read(self, size: int = -1) -> bytes:
        """As of the stream."""
        chunk = self._stream.read(size)
        self._last = (self._last + chunk)[-_BLOCK:] if len(chunk) < _BLOCK else chunk[-_BLOCK:]
        return chunk

    def check_end(self) -> None:
        """Read what is left. Raises tarfile.ReadError unless it ends as a tar does, with a block of zeros."""
        while self.read(_CHUNK):
            pass
        if self._last != bytes(_BLOCK):
            raise tarfile.ReadError("it is cut short: the mark of its end is missing")


def read_tar(stream: IO[bytes]) -> Found:
    """Every library in an uncompressed tar, read once from front to end, named from the root without a leading "/".

    Raises tarfile.TarError for a broken one.
    """
    source = _Tail(stream)
    with (
        tarfile.open(fileobj=cast("IO[bytes]", source), mode="r|", bufsize=_CHUNK) as tar,
        tempfile.NamedTemporaryFile() as spare,
    ):
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every file of an image
            name = member.name.lstrip("/")  # an engine that copies out of a container names files from "/"
            if not member.isreg() or member.size < 64 or name.startswith(_PSEUDO):
                continue
            if may_hold_code(name):
                content = tar.extractfile(member)
                if content is not None:
                    yield from _read_stream(name, content, member.size, spare)
    source.check_end()


def _is_elf(found: tuple[str, Library | FatbinError]) -> bool:
    return isinstance(found[1], FatbinError) or found[1].elf


def _read_stream(name: str, stream: IO[bytes], size: int, spare: IO[bytes]) -> Found:
    head = stream.read(64)
    if head[:4] != MAGIC:
        return
    if size <= _HELD:
        source: bytes | str = head + stream.read(size - len(head))
    else:
        spare.seek(0)
        spare.truncate()
        spare.write(head)
        shutil.copyfileobj(stream, spare, _CHUNK)
        spare.flush()
        source = spare.name
    try:
        library = read(source)
    except FatbinError as error:
        yield name, error
        return
    if library.elf:
        yield name, library
