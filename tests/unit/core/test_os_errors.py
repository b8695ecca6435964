"""What the operating system refuses is told as that, never as a defect of this program."""

from __future__ import annotations

import errno
import http.client
import io
import os
import ssl
from pathlib import Path

import pytest
import requests
import urllib3

from images.core.errors import UsageError
from images.core.home import default_layout
from images.core.report import print_error


def told(error: BaseException) -> tuple[int, str]:
    out = io.StringIO()
    return print_error(error, err=out), out.getvalue()


@pytest.mark.parametrize(
    ("number", "what", "do"),
    [
        (errno.ENOSPC, "the disk is full: /state/x cannot be written", "./inv engine --prune"),
        (errno.EDQUOT, "the quota of the disk is used up", "CARDSTOCK_HOME"),
        (errno.EROFS, "/state/x cannot be written: Read-only file system", "CARDSTOCK_HOME"),
        (errno.EACCES, "/state/x cannot be used: Permission denied", "CARDSTOCK_HOME"),
        (errno.EPERM, "/state/x cannot be used: Operation not permitted", "CARDSTOCK_HOME"),
        (errno.EMFILE, "too many files are open", "ulimit"),
        (errno.ENFILE, "too many files are open", "ulimit"),
        (errno.EIO, "the disk has an error: /state/x", "dmesg"),
        (errno.ENOTDIR, "the operating system refuses: /state/x: Not a directory", "see that it is there"),
        (errno.ENAMETOOLONG, "the operating system refuses: /state/x: File name too long", "see that it is there"),
        (errno.ESTALE, "the operating system refuses: /state/x: Stale file handle", "see that it is there"),
    ],
)
def test_each_has_its_sentence(number: int, what: str, do: str) -> None:
    code, text = told(OSError(number, os.strerror(number), "/state/x"))
    assert code == 1
    assert text.startswith(f"error: {what}")
    assert (do in text and "where: /state/x" in text) or number in (errno.EMFILE, errno.ENFILE)
    assert "defect" not in text and "unexpected" not in text


def test_without_a_name_or_words_it_is_still_told() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error in (full, OSError("odd"), ConnectionResetError(), TimeoutError()):
        text = told(error)[1]
        assert "defect" not in text and len(text.splitlines()) >= 3


@pytest.mark.parametrize(
    "error",
    [
        urllib3.exceptions.ProtocolError("Connection broken: IncompleteRead(5 bytes read, 7 more expected)"),
        http.client.IncompleteRead(b"x", 5),
        requests.exceptions.ConnectionError("('Connection aborted.', ConnectionResetError(104))"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
        ssl.SSLError("record layer failure"),
    ],
)
def test_a_connection_that_breaks_off_is_told_as_one(error: Exception) -> None:
    code, text = told(error)
    assert (code, text.splitlines()[0]) == (1, "error: a connection broke off")
    assert type(error).__name__ in text and "defect" not in text


def test_no_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UsageError, match="no place for the state folder") as caught:
        default_layout({})
    assert "CARDSTOCK_HOME" in caught.value.do


def test_a_defect_is_still_one() -> None:
    assert "a defect in cardstock" in told(KeyError("x"))[1]
