"""Compiled code packed: the same files give the same bytes, wherever and whenever they were made.

A gzip of a tar of plain files, sorted by name, without owners and times. Files come as the engine hands a container's
folder out (a tar), and count as from outside: what is no plain file is left out, sizes and numbers have bounds.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from images.compiled.inside.archive import MOST_BYTES, MOST_FILE, MOST_FILES, Refused, check_name, count, is_kept
from images.core import CheckFailed, Chunks, Unsafe
from images.registry import digest_of_file

_LEVEL = 6


def take(chunks: Iterable[bytes], below: str, folder: Path) -> int:
    """Write the compiled code of a tar below a folder; files that were taken.

    ``below`` is the tar's root as seen from the cache ("vllm" for "vllm/torch_compile_cache"), "" for the cache itself.
    Raises CheckFailed for more than an archive may hold, or a name that it may not.
    """
    taken = size = 0
    with tarfile.open(fileobj=Chunks(iter(chunks)), mode="r|") as tar:
        for entry in tar:
            name = "/".join(part for part in (below, entry.name.rstrip("/")) if part)
            if not entry.isreg() or not is_kept(name):
                continue
            taken, size = taken + 1, size + entry.size
            if taken > MOST_FILES or size > MOST_BYTES or entry.size > MOST_FILE:
                raise CheckFailed(
                    "the cache holds more than compiled code has",
                    cause=f"more than {MOST_FILES} files, {MOST_FILE} bytes in one of them, or {MOST_BYTES} in all",
                    do="./inv warm with the flags that it will be served with, and no others",
                )
            try:
                place = folder / check_name(name)
            except Refused as error:
                raise CheckFailed(
                    "the cache holds what cannot be kept", cause=str(error), do="tell the maintainers"
                ) from error
            place.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(entry)
            assert source is not None  # noqa: S101  (a plain file)
            with place.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
            place.chmod(0o755 if entry.mode & 0o100 else 0o644)
    return taken


def pack(folder: Path, into: Path) -> tuple[int, int]:
    """Pack all plain files below a folder into a file; how many, and their bytes unpacked."""
    files = sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix())
    with (
        into.open("wb") as out,
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=_LEVEL, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in files:
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            status = path.stat()
            entry.size, entry.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
            with path.open("rb") as source:
                tar.addfile(entry, source)
    return len(files), sum(path.stat().st_size for path in files)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def check_archive(archive: Path, sha256: str, size: int, files: int, unpacked: int, where: str) -> None:
    """Raises Unsafe unless an archive is the one that its record tells of, and can be unpacked within bounds."""
    found = archive.stat().st_size
    if found != size or digest_of_file(archive) != f"sha256:{sha256}":
        raise Unsafe(
            "the compiled code is damaged: its archive is not the one that its record tells of",
            cause=f"it has {found} bytes, not {size}" if found != size else "its SHA-256 is another",
            do="nothing of it was used",
            where=where,
        )
    try:
        counted = count(archive)
    except Refused as error:
        raise Unsafe(
            "the archive of compiled code is refused", cause=str(error), do="nothing of it was used", where=where
        ) from error
    if counted != (files, unpacked):
        raise Unsafe(
            "the archive of compiled code is refused",
            cause=f"it holds {counted[0]} files of {counted[1]} bytes, its record tells of {files} of {unpacked}",
            do="nothing of it was used",
            where=where,
        )
