"""A connection that breaks off is told as that, and what the operating system refuses as what it is."""

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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_state_folder_that_takes_nothing_has_a_way_out(number: int) -> None:
    code, text = told(OSError(number, os.strerror(number), "/state/work/x"))
    assert code == 1
    assert text.startswith(f"error: /state/work/x: {os.strerror(number)}")
    assert "CARDSTOCK_HOME" in text and "defect" not in text


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
