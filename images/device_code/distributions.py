"""The installed wheels of a site-packages: what each one lists, and what is left once some of its files are gone."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from images.device_code.elf import is_elf
from images.device_code.record import RecordError, change_rows, read_record
from images.device_code.unused import remove_empty


@dataclass
class Distribution:
    """One installed wheel: its RECORD, and the files that it lists, each with its row."""

    record: Path
    rows: dict[Path, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As indexes compare it: "nvidia-nccl-cu12"."""
        return normal(self._words[0])

    @property
    def version(self) -> str:
        return self._words[1]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version's leading numbers: (12, 4, 127)."""
        found = []
        for word in self.version.split("."):
            if not word.isascii() or not word.isdigit():
                break
            found.append(int(word))
        return tuple(found)

    @property
    def metadata(self) -> Path:
        """Its dist-info."""
        return self.record.parent

    @property
    def _words(self) -> tuple[str, str]:
        name, _, version = self.metadata.name.removesuffix(".dist-info").partition("-")
        return name, version


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(site: Path) -> list[Distribution]:
    """Every wheel of ``site`` (resolved), not what another one has vendored. Raises RecordError, OSError."""
    found = []
    for record in sorted(site.glob("*.dist-info/RECORD")):
        one = Distribution(record)
        try:
            for row in csv.reader(io.StringIO(read_record(record), newline="")):
                if row and row[0]:
                    one.rows[Path(os.path.normpath(site / row[0]))] = row[0]
        except csv.Error as error:
            raise RecordError(f"{str(record)!r} is no table: {error}") from error
        found.append(one)
    return found


def delete(site: Path, files: Iterable[Path]) -> int:
    """Delete ``files``, what Python compiled of them, and the folders of ``site`` left empty; the bytes given back.

    The installer has Python compile, and no RECORD names what comes of it. A file that is not there is no error.
    """
    files = set(files)
    freed = sum(_delete(path) for path in files | set(_compiled(files)))
    remove_empty(site, files)
    return freed


def forget(site: Path, all_of_them: Iterable[Distribution], files: Iterable[Path]) -> list[Distribution]:
    """Take ``files`` out of the RECORDs that list them; wheels without a library then go whole. Returns these.

    Their other files are deleted, except what another wheel lists too, and ``files``, which are somebody else's now.
    """
    wheels, taken = list(all_of_them), set(files)
    emptied = []
    for wheel in wheels:
        mine = taken & wheel.rows.keys()
        if not mine:
            continue
        change_rows(wheel.record, {wheel.rows.pop(path): None for path in sorted(mine)})
        if not any(_is_library(path) for path in wheel.rows):
            emptied.append(wheel)
    kept = {path for wheel in wheels if wheel not in emptied for path in wheel.rows} | taken
    for wheel in emptied:
        mine = set(wheel.rows) | {path for path in wheel.metadata.rglob("*") if not path.is_dir()}
        delete(site, {path for path in mine - kept if site in path.parents})  # not a script in bin/
    return emptied


def _is_library(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_elf(file.read(64))
    except (FileNotFoundError, IsADirectoryError):
        return False


def _compiled(sources: Iterable[Path]) -> Iterator[Path]:
    modules = {(path.parent / "__pycache__", path.stem) for path in sources if path.suffix == ".py"}
    for cache in {cache for cache, _ in modules}:
        if cache.is_dir():
            yield from (path for path in cache.iterdir() if (cache, path.name.partition(".")[0]) in modules)


def _delete(path: Path) -> int:
    try:
        size = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size
