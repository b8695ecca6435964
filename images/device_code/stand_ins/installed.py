"""Which distribution has a file, and what is left of a distribution once some of its files are gone."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from images.device_code.elf import is_elf
from images.device_code.record import change_rows, read_record


@dataclass
class Distribution:
    """One installed wheel: its RECORD, and the files that it lists, each with its row."""

    record: Path
    rows: dict[Path, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self._words[0].replace("_", "-").lower()

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
    def _words(self) -> tuple[str, str]:
        name, _, version = self.record.parent.name.removesuffix(".dist-info").partition("-")
        return name, version


def distributions(site: Path) -> list[Distribution]:
    """Every wheel of ``site`` (resolved). Raises RecordError, OSError, csv.Error."""
    found = []
    for record in sorted(site.glob("*.dist-info/RECORD")):
        one = Distribution(record)
        for row in csv.reader(io.StringIO(read_record(record), newline="")):
            if row:
                one.rows[Path(os.path.normpath(site / row[0]))] = row[0]
        found.append(one)
    return found


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
        _delete(site, wheel, kept)
    return emptied


def _is_library(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_elf(file.read(64))
    except (FileNotFoundError, IsADirectoryError):
        return False


def _delete(site: Path, wheel: Distribution, kept: set[Path]) -> None:
    mine = set(wheel.rows) | {path for path in wheel.record.parent.rglob("*") if not path.is_dir()}
    for path in sorted(mine - kept):
        if site not in path.parents:
            continue  # a script in bin/: nothing that this may touch
        path.unlink(missing_ok=True)
        if path.suffix == ".py":
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                compiled.unlink()
    remove_empty(site, mine)


def remove_empty(site: Path, files: Iterable[Path]) -> None:
    """Remove the folders that held ``files`` below ``site`` and hold nothing now."""
    folders = {parent for path in files for parent in path.parents if site in parent.parents}
    folders |= {folder / "__pycache__" for folder in folders}
    for folder in sorted(folders, key=lambda one: (-len(one.parts), one)):
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()
