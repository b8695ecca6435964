"""What the operating system refused, told as what it is: a full disk is no defect of this program."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from images.core.errors import CardstockError

# What to do, by errno. A failure of another kind is told by the system's own words, which are no defect either.
_REMEDY: Mapping[int, tuple[str, str]] = {
    errno.ENOSPC: (
        "the disk is full",
        "make room on that file system (df -h), then run the same again; ./inv engine --prune drops what runs left and "
        "the embedded engine's caches, CARDSTOCK_HOME moves the state folder",
    ),
    errno.EDQUOT: (
        "your quota on that disk is used up",
        "remove files of yours, or ask for a larger quota; CARDSTOCK_HOME moves the state folder",
    ),
    errno.EROFS: (
        "that file system is read-only",
        "work in a checkout that can be written, or have it mounted read-write; CARDSTOCK_HOME moves the state folder",
    ),
    errno.EACCES: (
        "this user may not do that there",
        "see the permissions of the file and its folders (ls -ld), or run as the user that owns them; CARDSTOCK_HOME "
        "moves the state folder",
    ),
    errno.EPERM: (
        "this user may not do that there",
        "run as the user that owns it, or as root; CARDSTOCK_HOME moves the state folder",
    ),
    errno.EMFILE: ("this process may open no more files", "raise the limit, as in: ulimit -n 4096"),
    errno.ENFILE: ("the machine has no more files to open", "end other programs, then run the same again"),
    errno.ENOMEM: ("the machine is out of memory", "end other programs, then run the same again"),
    errno.EIO: ("the disk or its cable fails", "see dmesg; save what is on it"),
    errno.EISDIR: ("a folder stands where a file is wanted", "name a file"),
    errno.ENOTDIR: ("a file stands where a folder is wanted", "name a folder, or move the file away"),
    errno.ENOENT: ("it is not there", "see whether it is spelt right, and was not removed meanwhile"),
    errno.ENAMETOOLONG: ("that name is longer than the file system takes", "take a shorter one"),
    errno.ELOOP: ("symbolic links lead round in a circle there", "see them with ls -l, and mend one"),
    errno.EADDRINUSE: ("another program has that port", "take another port, or end that program"),
    errno.EPIPE: ("what read the output has gone", "run the same again without it"),
}


def os_failure(error: OSError) -> CardstockError:
    """``error`` in the product's form: which file, what is wrong, what to do. Exit code 1."""
    cause, do = _REMEDY.get(error.errno or 0, (error.strerror or str(error) or type(error).__name__, ""))
    names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    words = error.strerror or cause
    return CardstockError(f"{names}: {words}" if names else words, cause=cause, do=do or "run the same again")
