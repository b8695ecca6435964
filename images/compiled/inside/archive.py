#!/usr/bin/env python3
"""The archive of compiled code: read within bounds, and put into a cache folder, whole or not at all.

    python archive.py ARCHIVE FOLDER KEY        one line of JSON: {"state": "filled", "units": 12, "files": 214, …}

It runs in a container of the image, as the image's user, with the cache mounted at FOLDER; and where an archive is made
or checked. Everything is written beside its place (FOLDER/.compiled) and moved into it by one rename for each unit: a
folder that its compiler reads as a whole, or a file of its own. What is there already stays as it is.

Exit code 3: the archive is refused, and nothing was moved. 4: the folder cannot be written.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Folders of a cache (below /cache: the entry point's BELOW) that hold compiled code, with the depth below the cache at
# which a name is read as a whole by whoever made it; 0: each file is one of its own.
# The longest name that fits decides. Of torch.compile's, vLLM makes a folder for each hash.
UNITS = {
    "vllm/torch_compile_cache/torch_aot_compile": 4,
    "vllm/torch_compile_cache": 3,
    "vllm/deep_gemm": 0,
    "triton": 2,
    "inductor": 0,
    "flashinfer": 0,
    "cuda": 1,
}
MOST_FILES = 50_000
MOST_BYTES = 8 << 30  # unpacked
MOST_FILE = 2 << 30
MOST_PARTS = 16  # names in a path
MOST_NAME = 255
MOST_PATH = 1000
# Names that are no compiled code: locks, what is not finished, bytecode (its time is that of the source).
_LEFT_OUT = ("__pycache__", "locks", "tmp")
OWN = ".compiled"
REFUSED, CLOSED = 3, 4
_CHUNK = 1 << 20
_PADDING = 1 << 16  # bytes behind the last file; tarfile reads and writes tars in blocks of 10240


class Refused(Exception):
    """An archive, or a name in it, that is not what an archive of compiled code is."""


def is_kept(path: str) -> bool:
    """Whether a path of a cache is one of compiled code that is worth to be kept."""
    parts = path.split("/")
    unfinished = any(
        part in _LEFT_OUT or part.startswith((".", "tmp.")) or part.endswith((".lock", ".tmp", ".pyc"))
        for part in parts
    )
    return folder_of(path) != "" and not unfinished


def folder_of(path: str) -> str:
    """The folder of `UNITS` that a path lies in; "" where it lies in none."""
    return max((name for name in UNITS if path.startswith(f"{name}/")), key=len, default="")


def unit_of(path: str) -> str:
    """The path that is moved as a whole."""
    depth = UNITS[folder_of(path)]
    parts = path.split("/")
    return "/".join(parts[:depth]) if depth else path


def check_name(path: str) -> str:
    """The path, if it may stand in an archive. Raises Refused."""
    parts = path.split("/")
    bad = (
        len(path.encode("utf-8", "surrogateescape")) > MOST_PATH
        or len(parts) > MOST_PARTS
        or any(part in ("", ".", "..") or len(part.encode("utf-8", "surrogateescape")) > MOST_NAME for part in parts)
        or not path.isprintable()
        or "\\" in path
    )
    if bad:
        raise Refused(f"the name {path[:100]!r}: it leads elsewhere, or is none of a cache")
    if not folder_of(path):
        raise Refused(f"the name {path[:100]!r}: it is in no folder of compiled code")
    return path


def members(archive: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Every file of an archive, checked: name, kind, size, sums, order. Raises Refused for the first that is wrong."""
    total = 0
    last = ""
    try:
        with gzip.open(archive) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            for number, entry in enumerate(tar):
                if number >= MOST_FILES:
                    raise Refused(f"more than {MOST_FILES} files")
                if not entry.isreg() or entry.issparse():
                    raise Refused(f"{entry.name[:100]!r} is no plain file")
                check_name(entry.name)
                if entry.name <= last:
                    raise Refused(f"{entry.name[:100]!r} stands twice, or not in its place")
                last = entry.name
                total += entry.size
                if entry.size > MOST_FILE or total > MOST_BYTES:
                    raise Refused(
                        f"{entry.name[:100]!r}: more than {MOST_FILE} bytes in a file, or {MOST_BYTES} in all"
                    )
                yield entry, tar
            # To its end, where the sum of all that was unpacked stands.
            if len(packed.read(_PADDING)) == _PADDING:
                raise Refused("it goes on behind its last file")
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError) as error:
        raise Refused(f"it cannot be unpacked: {error}") from error


def count(archive: Path) -> tuple[int, int]:
    """Files and unpacked bytes of an archive that is read to its end. Raises Refused."""
    files = size = 0
    for entry, _ in members(archive):
        files, size = files + 1, size + entry.size
    return files, size


def unpack(archive: Path, folder: Path) -> list[str]:
    """Write the files of an archive below a folder that is empty; their names. Raises Refused, OSError."""
    names = []
    for entry, tar in members(archive):
        place = folder / entry.name
        place.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(entry)
        if source is None:
            raise Refused(f"{entry.name[:100]!r} is no plain file")
        with place.open("xb") as out:
            shutil.copyfileobj(source, out, _CHUNK)
        place.chmod(0o755 if entry.mode & 0o100 else 0o644)
        os.utime(place, (0, 0))
        names.append(entry.name)
    return names


def fill(archive: Path, folder: Path, key: str) -> dict[str, object]:
    """Put an archive into a cache folder, once for each key; what came of it.

    "there": this key was put there before. "filled": ``units`` were moved, ``kept`` were there already and stay.
    Raises Refused where nothing was moved, OSError where the folder cannot be written.
    """
    own = folder / OWN
    mark = own / f"{key}.json"
    with _alone(own):
        if mark.is_file():
            return {"state": "there"}
        with tempfile.TemporaryDirectory(dir=own, prefix="incoming-") as text:
            beside = Path(text)
            names = unpack(archive, beside)
            units = sorted({unit_of(name) for name in names})
            moved = sum(_moved(beside, folder, unit) for unit in units)
        told: dict[str, object] = {
            "state": "filled", "files": len(names), "units": moved, "kept": len(units) - moved,
        }  # fmt: skip
        whole = own / f".{key}.{os.getpid()}"
        whole.write_text(json.dumps(told) + "\n")
        whole.replace(mark)
    return told


@contextmanager
def _alone(own: Path) -> Iterator[None]:
    """One fills, others wait; what a killed one has left goes first."""
    own.mkdir(parents=True, exist_ok=True)
    with (own / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for left in (*own.glob("incoming-*"), *own.glob(".*.*")):
            shutil.rmtree(left, ignore_errors=True)
            if left.is_file():
                left.unlink()
        yield


def _moved(beside: Path, folder: Path, unit: str) -> bool:
    """Move one unit to its place, unless something is there; whether it moved. Raises Refused for a link on the way."""
    place = folder / unit
    way = folder
    for part in unit.split("/")[:-1]:
        way = way / part
        if way.is_symlink():
            raise Refused(f"{way} is a link: nothing is written through it")
        way.mkdir(exist_ok=True)
    if place.is_symlink() or place.exists():
        return False
    (beside / unit).rename(place)
    return True


def main(words: list[str]) -> int:
    """Fill, and say so."""
    try:
        print(json.dumps(fill(Path(words[0]), Path(words[1]), words[2])))
    except Refused as error:
        print(json.dumps({"state": "refused", "why": str(error)[:500]}))
        return REFUSED
    except OSError as error:
        print(json.dumps({"state": "closed", "why": str(error)[:500]}))
        return CLOSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
