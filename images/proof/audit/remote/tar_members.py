"""Members of a layer's tar, one at a time: headers bounded in size, and an end that is one.

tarfile itself takes a header that is damaged for the end of the tar, and reads names as long as they say they are.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Literal

from images.proof.audit.remote.faults import LayerFault

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_HEADER = 1 << 20  # bytes of extended attributes and long names of one member; the kernel lets 64 KB of them be
_LONG = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_CHUNK = 1 << 20
_ENDS = ("EOFHeaderError", "EmptyHeaderError")  # tarfile's own, for a block of zeros and for nothing more


def members(stream: IO[bytes], mode: Literal["r|", "r:"]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each member with the tar that gives its content, until the two blocks of zeros or the end of ``stream``.

    ``mode`` "r|" reads on and on, "r:" seeks past contents. Raises LayerFault for what is no tar.
    """
    ends: list[Exception] = []

    class Bounded(tarfile.TarInfo):
        """A header that is not longer than a header is; why there is no further one is kept."""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            """One header."""
            try:
                info = super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError as error:
                ends.append(error)
                raise
            if info.size < 0 or (info.type in _LONG and info.size > _MOST_HEADER):
                raise LayerFault(f"a header of {info.size} bytes is in its tar")
            return info

    try:
        with tarfile.open(fileobj=stream, mode=mode, bufsize=_CHUNK, tarinfo=Bounded) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every file of an image
                yield tar, member
    except (tarfile.TarError, UnicodeError, ValueError, EOFError, OverflowError) as error:
        raise LayerFault(f"it is no tar: {error}") from error
    last = ends[-1] if ends else None
    # Without an end at all it is still a tar: some writers leave the zeros out, and engines take that.
    if last is not None and type(last).__name__ not in _ENDS:
        raise LayerFault(f"it is no tar: {last}")
