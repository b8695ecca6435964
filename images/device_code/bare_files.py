"""Files of nothing but device code, below a folder: which there are, whom they are for, and away with them.

A folder of cubins (FlashInfer's, a cache of Triton's) has files for several cards, and the program takes those for its
own. A file that no wanted card runs is one that it would not take.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from images.device_code.bare import is_cubin, read_bare
from images.device_code.elf import MAGIC
from images.device_code.model import Library
from images.device_code.record import PART, Owner, change_rows
from images.device_code.verdict import pick

_SUFFIXES = (".fatbin", ".ptx")
_HEAD = 64


def regular_files(folder: Path, unreadable: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Files below ``folder``, in order, without links and without what a run is writing.

    ``unreadable`` is given the error of each folder that cannot be read; without it that is raised.
    """

    def refuse(error: OSError) -> None:
        if unreadable is None:
            raise error
        unreadable(error)

    for root, names, files in os.walk(folder, onerror=refuse):
        names.sort()
        for name in sorted(files):
            path = Path(root, name)
            if not PART.fullmatch(name) and not path.is_symlink() and path.is_file():
                yield path


def bare_files(folder: Path) -> Iterator[Path]:
    """Fat binaries and PTX below ``folder``, by their names; cubins are ELF files and met among those."""
    for path in regular_files(folder, lambda _: None):
        if path.suffix.lower() in _SUFFIXES:
            yield path


def read_bare_file(path: Path) -> Library | None:
    """What a file of nothing but device code holds; None for another file. Raises FatbinError for a damaged one."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if not head or (head[:4] == MAGIC and not is_cubin(head)):
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return read_bare(view, path.name)


def is_bare(path: Path) -> bool:
    """Whether a file is nothing but device code, readable or not."""
    with path.open("rb") as file:
        return is_cubin(file.read(_HEAD)) or path.suffix.lower() in (".cubin", *_SUFFIXES)


def runs_any(library: Library, number: int) -> bool:
    """Whether the card of that number (75) runs any of it."""
    return any(pick(container, (number // 10, number % 10)) is not None for container in library.containers)


def remove(paths: Sequence[Path], owned: Mapping[Path, Owner]) -> None:
    """Delete the files, their rows in RECORD first: a run that is killed between leaves files that nobody owns, and the
    next run deletes those.
    """
    rows: dict[Path, dict[str, None]] = {}
    for path in paths:
        owner = owned.get(path.resolve())
        if owner is not None:
            rows.setdefault(owner.record, {})[owner.row] = None
    for record, gone in rows.items():
        change_rows(record, gone)
    for path in paths:
        path.unlink()
