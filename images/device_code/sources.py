"""Libraries out of a folder, a wheel or a stream of tar, one at a time: nothing is unpacked beyond one file."""

from __future__ import annotations

import errno
import mmap
import os
import posixpath
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from images.device_code.archive import MAGIC as ARCHIVE_MAGIC
from images.device_code.elf import MAGIC, View
from images.device_code.fatbin import FatbinError, Library, UnknownForm, read
from images.device_code.zip_bounds import check_directory, check_members

Found = Iterator[tuple[str, Library | FatbinError]]


class Watcher(Protocol):
    """Who looks at the files of a tar beside the audit, in the same pass. Names are from the root, without "/"."""

    def elf(self, name: str, view: View) -> None:
        """An ELF file of whatever name; ``view`` is closed afterwards."""

    def link(self, name: str, target: str) -> None:
        """A symbolic or hard link, and what it leads to, from the root."""

    def reads(self, name: str) -> bool:
        """Whether `text` is to be given this file."""

    def text(self, name: str, content: bytes) -> None:
        """The content of a file that `reads` asked for; its beginning, where it is longer than any such file."""


# Names that a library or a program has: lib.so, lib.so.12, program, python3.11, engine.bin; and those of device code.
_CANDIDATE = re.compile(
    r"[^.]+|.*\.(so|bin|run|node|cubin|fatbin|ptx|ltoir|a|o|dll|pyd|exe)|.*\.so\.[^/]*|.*\.\d+",
    re.IGNORECASE | re.DOTALL,
)
_CHUNK, _BLOCK = 1 << 20, 512
_HELD = 4 << 20  # bytes of a member held in memory; a larger one goes to one temporary file
_PSEUDO = ("proc/", "sys/", "dev/")
_MOST_FILES = 20_000_000
# How files begin that may hold device code: ELF, static archives, programs of Windows, fat binaries, code for linking.
_HEADS = (MAGIC, ARCHIVE_MAGIC, b"MZ", b"\x50\xed\x55\xba", b"\xed\x43\x4e\x7f")
_SUFFIXES = (".ptx", ".cubin", ".fatbin")


def may_hold_code(name: str) -> bool:
    """Whether a file of this name can be a library or a program."""
    return _CANDIDATE.fullmatch(name.rpartition("/")[2]) is not None


class Unreadable(UnknownForm):
    """A file or folder that the operating system does not let us read: what it holds cannot be told."""

    def __init__(self, error: OSError | OverflowError | ValueError) -> None:
        super().__init__("cannot be read", 0)
        self._why = getattr(error, "strerror", None) or str(error)

    def __str__(self) -> str:
        return f"cannot be read: {self._why}"


def read_file(path: Path, name: str) -> Found:
    """One file, as (name, what is in it). Raises OSError for one that is not readable, or no regular file."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    try:
        yield name, read(path, name)
    except FatbinError as error:
        yield name, error


def read_folder(folder: Path) -> Found:
    """Every file with device code below ``folder``, named from there; links are not followed.

    A file or folder below it that cannot be read is told as Unreadable. Raises OSError where ``folder`` cannot.
    """
    waiting = [str(folder)]
    pseudo = {os.path.join(folder, name.rstrip("/")) for name in _PSEUDO} if str(folder) == "/" else set()  # noqa: PTH118
    with os.scandir(folder):
        pass
    count = 0
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    count += 1
                    if count > _MOST_FILES:
                        raise OSError(errno.EMFILE, f"more than {_MOST_FILES} files", str(folder))
                    if entry.is_dir(follow_symlinks=False):
                        waiting += [entry.path] if entry.path not in pseudo else []
                    elif may_hold_code(entry.name) and entry.is_file(follow_symlinks=False):
                        yield from _read_within(entry.path, os.path.relpath(entry.path, folder))
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise
            yield os.path.relpath(place, folder), Unreadable(error)


def _read_within(path: str, name: str) -> Found:
    try:
        yield from (found for found in read_file(Path(path), name) if _counts(found[1]))
    except (OSError, OverflowError, ValueError) as error:
        yield name, Unreadable(error)


def read_wheel(path: Path) -> Found:
    """Every file with device code in a wheel or other zip file.

    Raises zipfile.BadZipFile for a broken one, ZipRefused, which is one, for one beyond the bounds, OSError for one
    that cannot be read.
    """
    check_directory(path)
    with zipfile.ZipFile(path) as wheel, tempfile.NamedTemporaryFile() as spare:
        check_members(wheel)
        for member in wheel.infolist():
            if member.is_dir() or not may_hold_code(member.filename):
                continue
            try:
                with wheel.open(member) as stream:
                    yield from _read_stream(member.filename, stream, member.file_size, spare)
            except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise zipfile.BadZipFile(f"{member.filename!r}: {error}") from error


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


def read_tar(stream: IO[bytes], watcher: Watcher | None = None) -> Found:
    """Every library in an uncompressed tar, read once from front to end, named from the root without a leading "/".

    ``watcher`` is shown the ELF files and links on the way. Raises tarfile.TarError for a broken tar.
    """
    source = _Tail(stream)
    with (
        tarfile.open(fileobj=cast("IO[bytes]", source), mode="r|", bufsize=_CHUNK) as tar,
        tempfile.NamedTemporaryFile() as spare,
    ):
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every file of an image
            name = member.name.lstrip("/")  # an engine that copies out of a container names files from "/"
            if watcher is not None and (member.issym() or member.islnk()):
                watcher.link(name, _target(member, name))
            if not member.isreg() or member.size < 64 or name.startswith(_PSEUDO):
                continue
            if watcher is not None or may_hold_code(name):
                content = tar.extractfile(member)
                if content is not None:
                    yield from _read_stream(name, content, member.size, spare, watcher)
    source.check_end()


def _target(member: tarfile.TarInfo, name: str) -> str:
    """What a link leads to, from the root; a hard link names it so, a symbolic one from its own folder or "/"."""
    from_here = posixpath.join(posixpath.dirname(name), member.linkname) if member.issym() else member.linkname
    return posixpath.normpath(f"/{from_here}" if not from_here.startswith("/") else from_here).lstrip("/")


def _counts(found: Library | FatbinError) -> bool:
    return isinstance(found, FatbinError) or bool(found.form)


def _read_stream(name: str, stream: IO[bytes], size: int, spare: IO[bytes], watcher: Watcher | None = None) -> Found:
    head = stream.read(64)
    known = may_hold_code(name) and (head.startswith(_HEADS) or name.lower().endswith(_SUFFIXES))
    if watcher is not None and watcher.reads(name):
        watcher.text(name, head + stream.read(min(size, _HELD) - len(head)))
        return
    watched = watcher is not None and head.startswith(MAGIC)
    if not known and not watched:
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
    if watcher is not None and watched:
        _show(watcher, name, source)
    if not known:
        return
    try:
        library = read(source, name)
    except FatbinError as error:
        yield name, error
        return
    if _counts(library):
        yield name, library


def _show(watcher: Watcher, name: str, source: bytes | str) -> None:
    if isinstance(source, bytes):
        watcher.elf(name, source)
        return
    with Path(source).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        watcher.elf(name, view)
