"""The RECORD of an installed wheel: who owns a file, and its new hash and size once it has changed.

Alone with unused.py in a builder stage: it imports nothing else of this project.
"""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SITES = ("site-packages", "dist-packages")
# What a run is writing, before it takes the place of the old file.
PART = re.compile(r"\.cardstock-[A-Za-z0-9_]+\.part")
_CHUNK = 1 << 20
_MOST_BYTES = 64 << 20  # flashinfer-cubin's, of 16,020 rows, has 4 MB
_MOST_RECORDS = 20_000
# Set by the kernel or by who signs: they hold for the old content only.
_NOT_COPIED = ("security.ima", "security.evm", "system.nfs4_acl")


class RecordError(Exception):
    """A RECORD that cannot be read, or that is none: the installation is damaged."""


@dataclass(frozen=True)
class Owner:
    """The distribution ("nvidia-nccl-cu12") that installed a file, its RECORD, and the row that RECORD has of it.

    ``digest`` and ``size`` are what the row says, "" where it says nothing.
    """

    name: str
    record: Path
    row: str
    digest: str = ""
    size: str = ""


def owners(folder: Path) -> dict[Path, Owner]:
    """Installed file -> owner, for all wheels in ``folder`` and in the site-packages that holds it.

    Raises RecordError for a RECORD that is none, OSError for one that cannot be read.
    """
    found = {}
    for record in records(folder):
        name = record.parent.name.rsplit("-", 2)[0].replace("_", "-").lower()
        for row in _rows(record):
            if row:
                path = Path(os.path.normpath(record.parent.parent / row[0]))
                digest, size = (*row[1:], "", "")[:2]
                found[path] = Owner(name, record, row[0], digest, size)
    return found


def records(folder: Path) -> list[Path]:
    """Every RECORD in ``folder`` and in the site-packages that holds it."""
    found = set(folder.rglob("*.dist-info/RECORD"))
    for parent in (folder, *folder.parents):
        found |= set(parent.glob("*.dist-info/RECORD"))
        if parent.name in SITES:
            break
    if len(found) > _MOST_RECORDS:
        raise RecordError(f"{len(found)} wheels are installed below {folder}: at most {_MOST_RECORDS} are read")
    return sorted(found)


def read_record(record: Path) -> str:
    """The text of a RECORD. Raises RecordError for what is no file, too large or no text; OSError."""
    descriptor = os.open(record, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not be waited for
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise RecordError(f"{str(record)!r} is no regular file")
        if status.st_size > _MOST_BYTES:
            raise RecordError(f"{str(record)!r} has {status.st_size} bytes: at most {_MOST_BYTES} are read")
        content = file.read(_MOST_BYTES + 1)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{str(record)!r} is no text in UTF-8: {error.reason} at byte {error.start}") from error


def _rows(record: Path) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(read_record(record), newline=""))
    except csv.Error as error:
        raise RecordError(f"{str(record)!r} is no table: {error}") from error


def file_hash(path: Path) -> str:
    """As RECORD writes it: sha256, urlsafe base 64, no padding."""
    with path.open("rb") as file:
        return descriptor_hash(file.fileno())


def descriptor_hash(descriptor: int) -> str:
    """As `file_hash`, of an open file, wherever it was read to."""
    digest = hashlib.sha256()
    at = 0
    while chunk := os.pread(descriptor, _CHUNK, at):
        digest.update(chunk)
        at += len(chunk)
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def update_record(owner: Owner, digest: str, size: int | str) -> None:
    """Write hash and size into the owner's row; other rows stay as they are, byte for byte."""
    change_rows(owner.record, {owner.row: (digest, str(size))})


def mend_record(owner: Owner, path: Path) -> bool:
    """Write the hash and size of ``path`` into its row if they differ; whether they did."""
    size = path.stat().st_size
    if owner.size == str(size) and owner.digest == file_hash(path):
        return False
    update_record(owner, file_hash(path), size)
    return True


def change_rows(record: Path, new: Mapping[str, tuple[str, str] | None]) -> None:
    """Write hash and size into the rows of these files, or take a row out (None); others stay byte for byte."""
    kept = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", read_record(record)):
        row = next(csv.reader([line.rstrip("\r\n")]), [])
        if not row or row[0] not in new:
            kept.append(line)
        elif (facts := new[row[0]]) is not None:
            text = io.StringIO()
            csv.writer(text, lineterminator="").writerow([row[0], *facts])
            kept.append(text.getvalue() + line[len(line.rstrip("\r\n")) :])
    replace_whole(record, "".join(kept).encode("utf-8"))


def replace_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all; mode, owner and extended attributes stay."""
    path = path.resolve()
    descriptor, part = begin_part(path)
    try:
        with os.fdopen(descriptor, "wb") as file, path.open("rb") as old:
            file.write(content)
            file.flush()
            keep_attributes(old.fileno(), file.fileno())
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a call by descriptor names none
        raise
    finally:
        part.unlink(missing_ok=True)


def begin_part(path: Path) -> tuple[int, Path]:
    """A new file beside ``path`` that is to take its place: open, and its name. An OSError names ``path``."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".cardstock-", suffix=".part", dir=path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    return descriptor, Path(name)


def keep_attributes(old: int, new: int) -> None:
    """Give the open file ``new`` the owner, the extended attributes and the mode of ``old``.

    Raises OSError where this user may not: the file would be another's then.
    """
    status, now = os.fstat(old), os.fstat(new)
    if (status.st_uid, status.st_gid) != (now.st_uid, now.st_gid):
        os.fchown(new, status.st_uid, status.st_gid)
    names: list[str] = []
    with suppress(OSError):  # a file system without them
        names = os.listxattr(old)
    for name in names:
        if name in _NOT_COPIED:
            continue
        value = os.getxattr(old, name)
        try:
            if name in os.listxattr(new) and os.getxattr(new, name) == value:
                continue
            os.setxattr(new, name, value)
        except OSError as error:
            if not name.startswith(("security.selinux", "trusted.")) or error.errno == errno.ENOSPC:
                raise
    os.fchmod(new, stat.S_IMODE(status.st_mode))
