"""A blob's bytes as they come, without a file: resumed where an answer broke off, checked by digest at their end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from images.core import RegistryFailure, Unsafe
from images.registry.api import RepositoryApi
from images.registry.descriptor import Blob
from images.registry.response import Response
from images.registry.retry import TransientError

SLOWEST = 16 << 10  # bytes a second below which a download counts as broken off
PATIENCE = 300.0  # seconds that any download may take
_MOST_BREAKS = 1000  # a line that breaks oftener is no line: of 64 GB a piece of 64 MB each time
_SMALL_PATIENCE = 120.0


def begins_at(content_range: str, begin: int) -> bool:
    """Whether a Content-Range begins at this byte; where a registry does not say, the digest will."""
    said = re.match(r"bytes (\d{1,20})-", content_range.strip())
    return said is None or int(said[1]) == begin


class BlobStream:
    """The bytes of a blob, read once from front to end by iterating.

    The last piece comes before the digest is known: what was made of the pieces counts when the loop has ended, not
    before. Raises RegistryFailure where the registry stays broken, Unsafe at the end for bytes of another digest, at
    once for more bytes than the blob has. ``received`` counts what came over the line, ``resumed`` says whether it was
    put together of several answers.
    """

    def __init__(self, api: RepositoryApi, blob: Blob, count: Callable[[int], None] = lambda _: None) -> None:
        self._api, self._blob, self._count = api, blob, count
        self._told: Response | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._have = 0
        self._skip = 0  # bytes of an answer that begins at 0 again that were given out already
        self._breaks = 0
        self._no_rests = False  # the registry gives no rest of a blob: its whole again, and what was had is passed over
        self.resumed = False

    def __iter__(self) -> Iterator[bytes]:
        found = hashlib.sha256()
        try:
            while self._have < self._blob.size or self._told is None:
                piece = self._api.repeat(self._blob.digest, self._next)
                self._have += len(piece)
                if self._have > self._blob.size:
                    raise self._more()
                found.update(piece)
                yield piece
                if not self._blob.size:
                    break
            self._refuse_more()
        finally:
            self._close()
        if f"sha256:{found.hexdigest()}" != self._blob.digest:
            raise self._api.unsafe("a blob", self._blob.digest, f"sha256:{found.hexdigest()}")

    def _next(self) -> bytes:
        """One more piece; empty for an empty blob alone. Raises TransientError, after which it goes on where it was."""
        try:
            if self._told is None:
                self._open()
            while piece := next(self._pieces, b""):
                self._count(len(piece))
                skip = min(len(piece), self._skip)
                self._skip -= skip
                if piece := piece[skip:]:
                    return piece
            if self._have < self._blob.size:
                raise TransientError(f"the answer ended after {self._have} of {self._blob.size} bytes")
            return b""
        except TransientError as fault:
            self._breaks += 1
            self._close()
            if self._breaks > _MOST_BREAKS:
                raise RegistryFailure(
                    f"{self._api.address.name}: {self._blob.digest} breaks off again and again",
                    cause=f"{fault}, after {self._breaks - 1} times",
                    do="run the same again later, or on another line",
                    where=self._api.address.registry,
                ) from fault
            raise

    def _refuse_more(self) -> None:
        """Raises Unsafe where bytes come behind the last one."""
        with suppress(TransientError):
            if next(self._pieces, b""):
                raise self._more()

    def _more(self) -> Unsafe:
        return self._api.unsafe("a blob", f"{self._blob.digest} of {self._blob.size} bytes", "more bytes than that")

    def _open(self) -> None:
        headers = {"Range": f"bytes={self._have}-"} if self._have and not self._no_rests else {}
        told = self._api.call("GET", f"blobs/{self._blob.digest}", headers, ok=(200, 206, 416))
        another = told.status == 206 and not begins_at(told.headers.get("Content-Range", ""), self._have)
        if told.status == 416 or another:
            told.close()
            self._no_rests = True
            raise TransientError("the registry gives another part than was asked for; its whole is read again")
        self.resumed = self.resumed or bool(self._have)
        self._skip = 0 if told.status == 206 else self._have
        self._told = told
        self._pieces = told.pieces(PATIENCE + self._blob.size / SLOWEST)

    def _close(self) -> None:
        if self._told is not None:
            self._told.close()
        self._told, self._pieces = None, iter(())


def read_part(
    api: RepositoryApi, blob: Blob, begin: int, length: int, count: Callable[[int], None] = lambda _: None
) -> bytes | None:
    """``length`` bytes of a blob from ``begin`` on; None where the registry gives no parts.

    What comes has no digest of its own: the caller must know one, or say that it was not checked. Raises
    RegistryFailure where the registry stays broken, ValueError for a part that is not inside the blob.
    """
    if not (begin >= 0 and 0 < length <= blob.size - begin):
        raise ValueError(f"no {length} bytes at {begin} in a blob of {blob.size}")

    def once() -> bytes | None:
        headers = {"Range": f"bytes={begin}-{begin + length - 1}"}
        with api.call("GET", f"blobs/{blob.digest}", headers, ok=(200, 206, 416, 501)) as told:
            if told.status != 206 or not begins_at(told.headers.get("Content-Range", ""), begin):
                return None
            found = bytearray()
            for piece in told.pieces(_SMALL_PATIENCE + length / SLOWEST):
                count(len(piece))
                found += piece
                if len(found) > length:
                    return None
            if len(found) < length:
                raise TransientError(f"the answer ended after {len(found)} of {length} bytes")
        return bytes(found)

    return api.repeat(blob.digest, once)
