"""One run at a time in a folder, and what a killed run left there."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from images.device_code.names import shown
from images.device_code.record import PART, SITES

_LIMIT = 600.0  # seconds: slimming 2 GB of libraries takes six
_PAUSE = 0.1
# As earlier versions named what they were writing; the name between the dots is the file's that it was to replace.
_OLD_PART = re.compile(r"\.(?P<name>.+)\.(?:[a-z0-9_]{8}|[0-9]+)\.part", re.DOTALL)

Tell = Callable[[str], None]


class FolderBusy(Exception):
    """Another run works in the folder and does not end."""


@contextmanager
def locked(folder: Path, tell: Tell, limit: float = _LIMIT) -> Iterator[None]:
    """Hold the folder, or the site-packages that it is in, for one run; ``tell`` is given a line when that must wait.

    The kernel drops the lock with the process. Folders above are held as well, shared, so that a run in one of them
    waits too. Where the file system has no locks, there is none. Raises FolderBusy after ``limit`` seconds.
    """
    root = _root(folder.resolve())
    handles: list[int] = []
    try:
        for place in (*reversed(root.parents), root):
            with suppress(OSError):  # a folder above that nobody may open
                handles.append(os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                _take(handles[-1], fcntl.LOCK_EX if place == root else fcntl.LOCK_SH, place, tell, limit)
        yield
    finally:
        for handle in handles:
            os.close(handle)


def _root(folder: Path) -> Path:
    """The RECORDs that a run changes lie in the site-packages around its folder."""
    return next((place for place in (folder, *folder.parents) if place.name in SITES), folder)


def _take(handle: int, kind: int, place: Path, tell: Tell, limit: float) -> None:
    waited = 0.0
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return
        if not waited:
            tell(f"waiting: another run works in {shown(str(place))}")
        if waited >= limit:
            raise FolderBusy(f"another run has worked in {shown(str(place))} for {limit:.0f} s")
        time.sleep(_PAUSE)
        waited += _PAUSE


def sweep(folder: Path) -> list[Path]:
    """Delete below ``folder`` what killed runs were writing; what went. Only for who holds the lock."""
    gone = []
    for root, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".part") and _is_part(Path(root), name):
                path = Path(root, name)
                path.unlink()
                gone.append(path)
    return gone


def _is_part(root: Path, name: str) -> bool:
    if PART.fullmatch(name):
        return True
    old = _OLD_PART.fullmatch(name)
    return old is not None and (root / old["name"]).is_file()
