"""Folders to work in, below the state folder: named, locked while their process lives, swept when it does not.

What a killed run leaves is found by its lock, which died with it; the next run that works drops it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from images.core.home import default_layout
from images.core.locks import hold, try_lock

# A state folder that cannot be written or made: a home that is read-only, or somebody else's, or below a file.
CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT})
_GATE = ".gate"
Before = Callable[[Path], None]


def work_root(home: Path | None = None) -> Path:
    """Where they lie."""
    return (home or default_layout().home) / "work"


def can_write(home: Path) -> bool:
    """Whether the state folder can be written, or made."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return True
    except OSError as error:
        if error.errno in CLOSED:
            return False
        raise


@contextmanager
def work_folder(purpose: str, root: Path | None = None, before: Before = lambda _: None) -> Iterator[Path]:
    """An empty folder for as long as the block runs; leftovers of killed runs beside it go first.

    ``before`` is called with a folder before it is removed (to unmount what is below it). Where the state folder cannot
    be written, it lies in the system's temporary folder.
    """
    root = root or work_root()
    try:
        folder, handle = _made(purpose, root, before)
    except OSError as error:
        if error.errno not in CLOSED:
            raise
        with tempfile.TemporaryDirectory(prefix=f"cardstock-{purpose}-") as elsewhere:
            yield Path(elsewhere)
        return
    try:
        yield folder
    finally:
        before(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _made(purpose: str, root: Path, before: Before) -> tuple[Path, int]:
    """A folder and the descriptor that holds its lock. Nobody sweeps between the two."""
    sweep(root, before)
    with hold(root / _GATE, "another start"):
        folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-{os.getpid()}-", dir=root))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try_lock(handle)  # it is new, and whoever sweeps waits at the gate
    return folder, handle


def sweep(root: Path | None = None, before: Before = lambda _: None) -> int:
    """Drop the folders whose process has ended; their bytes as far as they could be counted."""
    root = root or work_root()
    root.mkdir(parents=True, exist_ok=True)
    dropped = 0
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.is_symlink():
            dropped += _drop_dead(folder, root, before)
    return dropped


def _drop_dead(folder: Path, root: Path, before: Before) -> int:
    with hold(root / _GATE, "another start"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return 0  # gone meanwhile, or not ours to look at
        if not try_lock(handle):
            os.close(handle)
            return 0
    try:
        before(folder)
        size = bytes_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)
    return size


def bytes_below(folder: Path) -> int:
    """Bytes of the files in a folder and below it; what goes away meanwhile is left out."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += Path(place, name).lstat().st_size
    return size
