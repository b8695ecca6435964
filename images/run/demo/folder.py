"""The folder of one page: its uploads and temporary files, gone with it; what a killed one left, at the next start."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "demo-"
_PARTS = ("uploads", "tmp")


@contextmanager
def page_folder(home: Path) -> Iterator[Path]:
    """A folder below ``home`` with ``uploads`` and ``tmp`` in it, locked and there for as long as the block runs.

    flock(2) on the folder tells a page that runs from one that was killed: the lock dies with its process. Raises
    OSError where ``home`` cannot be written.
    """
    sweep(home)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home)).resolve()
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in _PARTS:
            (folder / name).mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(home: Path) -> int:
    """Drop the folders of pages that have ended without doing so; how many."""
    dropped = 0
    for folder in home.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, somebody else's, or a page that runs holds the lock
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # One that is just being made has no lock yet, and nothing in it.
                if any((folder / name).is_dir() for name in _PARTS):
                    shutil.rmtree(folder)
                    dropped += 1
            finally:
                os.close(lock)
    return dropped
