"""Installed packages that no server of an image imports: away with them, whole.

Run in a builder stage, standard library only; matrix.yaml says which, for each stack (section `unused`):

    python -m images.device_code.unused_packages SITE [--package NAME]... [--file GLOB]...

A module of its own beside unused.py, which NVIDIA's layer is made with: a change here must not make that anew.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from images.device_code.record import RecordError, read_record, records
from images.device_code.unused import drop

_METADATA = re.compile(r"(?P<name>.+)-[^-]+\.dist-info")


@dataclass(frozen=True)
class Installed:
    """A distribution: its normal name ("ruamel-yaml"), its dist-info, and the files that its RECORD names."""

    name: str
    metadata: Path
    files: frozenset[Path]


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(site: Path) -> list[Installed]:
    """What is installed in ``site``. Raises RecordError for a RECORD that is none, OSError."""
    found = []
    for record in records(site):
        if record.parent.parent != site:
            continue  # vendored by another package
        match = _METADATA.fullmatch(record.parent.name)
        rows = csv.reader(io.StringIO(read_record(record), newline=""))
        files = frozenset(Path(os.path.normpath(site / row[0])) for row in rows if row and row[0])
        found.append(Installed(normal(match["name"] if match else record.parent.name), record.parent, files))
    return found


def drop_packages(site: Path, names: Iterable[str]) -> int:
    """Delete what these distributions installed, scripts and dist-info too; the bytes given back.

    A file that a remaining distribution has as well stays. Raises LookupError for a name that is not installed and
    RecordError for a RECORD with files outside of the environment: nothing is deleted then.
    """
    site = site.resolve()
    wanted = {normal(name) for name in names}
    if not wanted:
        return 0
    there = installed(site)
    if missing := wanted - {one.name for one in there}:
        raise LookupError(f"not installed: {', '.join(sorted(missing))}")
    kept = {path for one in there if one.name not in wanted for path in one.files}
    gone = {path for one in there if one.name in wanted for path in one.files} - kept
    environment = site.parents[2]  # /opt/venv of /opt/venv/lib/python3.11/site-packages
    if outside := sorted(path for path in gone if environment not in path.parents):
        raise RecordError(f"{outside[0]} is not below {environment}: no file of an installed package")
    freed = sum(_delete(path) for path in gone | set(_compiled(gone)))
    for one in there:
        if one.name in wanted:
            shutil.rmtree(one.metadata, ignore_errors=True)
    _drop_empty_folders(site, gone)
    return freed


def _compiled(sources: Iterable[Path]) -> Iterator[Path]:
    """What Python compiled of these files; the installer had it done, and no RECORD names it."""
    modules = {(path.parent / "__pycache__", path.stem) for path in sources if path.suffix == ".py"}
    for cache in {cache for cache, _ in modules}:
        if cache.is_dir():
            yield from (path for path in cache.iterdir() if (cache, path.name.partition(".")[0]) in modules)


def _delete(path: Path) -> int:
    """Delete a file, if it is there; its size."""
    try:
        size = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _drop_empty_folders(site: Path, files: Iterable[Path]) -> None:
    folders = {parent for path in files for parent in path.parents if site in parent.parents}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        for empty in (folder / "__pycache__", folder):
            with suppress(OSError):  # not empty, or not there
                empty.rmdir()


def main(words: Sequence[str]) -> int:
    """The command line; exit code 1 for a package that is not there, 2 for words it does not know."""
    site, *rest = words or [""]
    options = list(zip(rest[::2], rest[1::2], strict=False))
    if not site or len(rest) % 2 or any(option not in ("--package", "--file") for option, _ in options):
        print(__doc__, file=sys.stderr)
        return 2
    names = [value for option, value in options if option == "--package"]
    globs = [value for option, value in options if option == "--file"]
    try:
        freed = drop_packages(Path(site), names)
    except (LookupError, RecordError) as error:
        print(f"unused packages: {error.args[0]}; see the section `unused` of matrix.yaml", file=sys.stderr)
        return 1
    freed += drop(Path(site), globs) if globs else 0
    print(f"unused packages: {freed / 1e6:.1f} MB of {len(names)} packages and {len(globs)} globs dropped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
