"""The local store of kernel wheels: a folder a key, whole or not there, checked whenever it is used.

``$CARDSTOCK_HOME/wheels/KEY`` holds the wheel and its kernel.json, and is what a build mounts. It lies outside of the
checkout, so every checkout of this machine shares it, and a removed build cache costs nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.core import CardstockError, CheckFailed, Unsafe, default_layout, hold
from images.kernels.key import Key, key_of_record
from images.kernels.record import FILE, WheelRecord, read_record
from images.kernels.wheel import check_digest, check_wheel

_KEY = re.compile(r"[0-9a-f]{64}")
_WORK = ".work"
_LOCKS = ".locks"
# Left by a process that was killed; none takes longer to move a finished wheel into place.
_STALE_SECONDS = 7 * 86400
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stored:
    """A wheel that lies in a store: its key's digest, its folder, its record, and when it came (Unix seconds)."""

    digest: str
    folder: Path
    record: WheelRecord
    made: float

    @property
    def wheel(self) -> Path:
        """The wheel's path."""
        return self.folder / self.record.wheel


def default_store() -> Store:
    """The store of this machine: $CARDSTOCK_HOME/wheels."""
    return Store(default_layout().home / "wheels")


class Store:
    """Kernel wheels below one folder. Safe for several processes at once: entries come and go by one rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: Key, say: Say = lambda _: None) -> Stored | None:
        """The wheel of a key, its bytes checked; None where it is not there, or was damaged (said, and removed)."""
        folder = self.root / key.digest
        if not folder.is_dir():
            return None
        try:
            found = self._checked(folder)
            check_digest(found.wheel, found.record)
        except CardstockError as error:
            say(f"damaged, so it is made anew: {folder.name[:12]} in {self.root}: {error.what}")
            self._remove(folder)
            return None
        return found

    def put(self, key: Key, folder: Path) -> Stored:
        """Move a finished build (a folder made by `work`) into the store, after all that can be checked was.

        Raises Unsafe where the record is another key's or the wheel's bytes are not the record's, CheckFailed where the
        wheel's device code is not what was asked for.
        """
        check_build(key, folder)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
            _sync(path)
        place = self.root / key.digest
        if place.is_dir():
            self._remove(place)
        os.replace(folder, place)
        _sync(self.root)
        return self._checked(place)

    def entries(self) -> tuple[Stored, ...]:
        """All that lies here, by key; what makes no sense is left out. Wheels are not read."""
        found = []
        for folder in sorted(self.root.glob("*")) if self.root.is_dir() else []:
            if _KEY.fullmatch(folder.name):
                try:
                    found.append(self._checked(folder))
                except CardstockError:
                    continue
        return tuple(found)

    @contextmanager
    def work(self) -> Iterator[Path]:
        """An empty folder on the store's disk, gone at the end unless `put` took it."""
        parent = self.root / _WORK
        parent.mkdir(parents=True, exist_ok=True)
        _drop_stale(parent)
        folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def locked(self, key: Key, say: Say = lambda _: None) -> Iterator[None]:
        """Hold a key while it is made, so that one makes it and others wait. The lock dies with its process."""
        with hold(self.root / _LOCKS / key.digest, f"{key.package} {key.version} for {' '.join(key.archs)}", say):
            yield

    def _checked(self, folder: Path) -> Stored:
        """The entry of a folder, whose record must be that of its name. The wheel's bytes are not read."""
        record = read_record(folder)
        if key_of_record(record).digest != folder.name:
            raise Unsafe(f"{folder.name[:12]} holds another wheel than its name says", where=str(folder))
        try:
            return Stored(folder.name, folder, record, (folder / record.wheel).stat().st_mtime)
        except OSError as error:
            raise CheckFailed(f"{folder.name[:12]} has lost its wheel {record.wheel}", where=str(folder)) from error

    def _remove(self, folder: Path) -> None:
        """Out of sight first, so that nobody meets half of it."""
        with self.work() as grave:
            try:
                os.replace(folder, grave / folder.name)
            except FileNotFoundError:
                return


def check_build(key: Key, folder: Path) -> WheelRecord:
    """Raise Unsafe or CheckFailed unless a folder holds exactly the wheel of a key, and its record."""
    record = read_record(folder)
    if different := key.differences(key_of_record(record)):
        raise Unsafe(
            f"the wheel {record.wheel} is not the one that was asked for",
            cause="; ".join(different),
            do="nothing was stored; build it here, or look at how it was made",
            where=str(folder / FILE),
        )
    if extra := sorted({path.name for path in folder.iterdir()} - {FILE, record.wheel}):
        raise CheckFailed(f"beside {record.wheel} there is {', '.join(extra)}", where=str(folder))
    check_digest(folder / record.wheel, record)
    check_wheel(folder / record.wheel, record)
    return record


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _drop_stale(parent: Path) -> None:
    for folder in parent.iterdir():
        try:
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue
