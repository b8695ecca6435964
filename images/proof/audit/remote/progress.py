"""What was read of an image so far: counted by those that read, told by the one that waits. Safe for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from images.core import human_bytes, human_seconds
from images.proof.audit.remote.faults import LayerFault

_EVERY = 10.0  # seconds between two lines
_MOST_MEMBERS = 4_000_000  # files of an image; the largest seen have some 200,000


class Stopped(Exception):
    """Another layer has failed: this one need not be read on."""


class Progress:
    """Bytes and files of all layers. ``total``: bytes of the layers as they are packed."""

    def __init__(self, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.received, self.members = total, 0, 0
        self._say, self._clock = say, clock
        self._began = self._told = clock()
        self._stopped = False
        self._lock = threading.Lock()

    def count(self, size: int) -> None:
        """So many bytes came over the line. Raises Stopped after `stop`."""
        with self._lock:
            self.received += size
            now = self._clock()
            tell = now - self._told >= _EVERY
            self._told = now if tell else self._told
        if self._stopped:
            raise Stopped
        if tell:
            self._say(f"read {self.line()}, {human_seconds(now - self._began)}")

    def member(self) -> None:
        """One more file. Raises LayerFault beyond the bounds."""
        with self._lock:
            self.members += 1
            if self.members > _MOST_MEMBERS:
                raise LayerFault(f"more than {_MOST_MEMBERS} files are in it and the layers beside it")
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """Let those that read end."""
        self._stopped = True

    def line(self) -> str:
        """ "1.20 GB of 9.02 GB (13 %)"."""
        share = f" ({100 * self.received / self.total:.0f} %)" if self.total else ""
        return f"{human_bytes(self.received)} of {human_bytes(self.total)}{share}"
