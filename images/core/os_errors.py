"""What the operating system refuses, as a person reads it: a full disk, a folder that cannot be written, a limit."""

from __future__ import annotations

import errno
import os

from images.core.errors import CardstockError

# Whose errors are those of a connection, where nobody has made one of Cardstock's of them.
_NETWORK = ("http.client", "requests", "ssl", "urllib3")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_FILES = (errno.EMFILE, errno.ENFILE)


def explained(error: BaseException) -> CardstockError | None:
    """The error of a person's machine or network, not of this program; None for what is neither."""
    if type(error).__module__.startswith(_NETWORK) or isinstance(error, ConnectionError | TimeoutError):
        return CardstockError(
            "a connection broke off",
            cause=f"{type(error).__name__}: {error}",
            do="see that the engine, the registry or the hub answers (./inv doctor), then run the same again",
        )
    return _refused(error) if isinstance(error, OSError) else None


def _refused(error: OSError) -> CardstockError:
    """What the operating system refused: what could not be done, where, and what to do."""
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    said = error.strerror or str(error) or type(error).__name__
    at = f" {place}" if place else ""
    if error.errno in _FULL:
        what = "the quota of the disk is used up" if error.errno == errno.EDQUOT else "the disk is full"
        return CardstockError(
            f"{what}:{at or ' a file'} cannot be written",
            cause=said,
            do="free some space (./inv engine --prune drops what killed runs left), or set CARDSTOCK_HOME to a larger "
            "disk; run the same again to go on",
            where=place,
        )
    if error.errno in _CLOSED:
        readonly = error.errno == errno.EROFS
        return CardstockError(
            f"{place or 'a file'} cannot be {'written' if readonly else 'used'}: {said}",
            cause="it is mounted read-only" if readonly else f"this user (id {os.getuid()}) may not do that",
            do="make it writable, or name another place: CARDSTOCK_HOME is the state folder, TMPDIR the temporary one",
            where=place,
        )
    if error.errno in _FILES:
        return CardstockError(
            "too many files are open", cause=said, do="raise the limit (ulimit -n 4096), then run the same again"
        )
    if error.errno == errno.EIO:
        return CardstockError(
            f"the disk has an error:{at or ' a file'} cannot be read or written",
            cause=said,
            do="look at dmesg; the disk, or what it is mounted from, may be broken",
            where=place,
        )
    return CardstockError(
        f"the operating system refuses: {place + ': ' if place else ''}{said}",
        cause=type(error).__name__,
        do="see that it is there and what it should be, then run the same again; --debug shows where it was used",
        where=place,
    )
