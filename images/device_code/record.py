"""The RECORD of an installed wheel: who owns a file, and its new hash and size once it has changed."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SITES = ("site-packages", "dist-packages")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Owner:
    """The distribution ("nvidia-nccl-cu12") that installed a file, its RECORD, and the path that RECORD gives it."""

    name: str
    record: Path
    row: str


def owners(folder: Path) -> dict[Path, Owner]:
    """Installed file -> owner, for all wheels in ``folder`` and in the site-packages that holds it."""
    records = set(folder.rglob("*.dist-info/RECORD"))
    for parent in (folder, *folder.parents):
        records |= set(parent.glob("*.dist-info/RECORD"))
        if parent.name in _SITES:
            break
    found = {}
    for record in sorted(records):
        name = record.parent.name.rsplit("-", 2)[0].replace("_", "-").lower()
        for row in _rows(record):
            if row:
                path = Path(os.path.normpath(record.parent.parent / row[0]))
                found[path] = Owner(name, record, row[0])
    return found


def _rows(record: Path) -> Iterator[list[str]]:
    with record.open(encoding="utf-8", newline="") as lines:
        yield from csv.reader(lines)


def file_hash(path: Path) -> str:
    """As RECORD writes it: sha256, urlsafe base 64, no padding."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def update_record(owner: Owner, path: Path) -> None:
    """Write the hash and size of ``path`` into its row; other rows stay as they are, byte for byte."""
    lines = owner.record.read_bytes().decode("utf-8").split("\n")
    for number, line in enumerate(lines):
        row = next(csv.reader([line]), [])
        if row and row[0] == owner.row:
            text = io.StringIO()
            csv.writer(text, lineterminator="").writerow([row[0], file_hash(path), path.stat().st_size])
            lines[number] = text.getvalue() + ("\r" if line.endswith("\r") else "")
    replace_whole(owner.record, "\n".join(lines).encode("utf-8"))


def replace_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all, with the mode that it had."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(path.stat().st_mode & 0o7777)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
