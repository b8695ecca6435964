"""What stands in for Python 3.11's own does what that does."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime, timedelta

from images.core import process, toml
from images.core.python310 import NEW_GROUP, UTC, TextEnum, sha256_of


class Colour(TextEnum):
    RED = "red"


def test_a_member_is_its_text_everywhere() -> None:
    assert (str(Colour.RED), f"{Colour.RED}", f"{Colour.RED:>5}", "".join([Colour.RED])) == (
        "red",
        "red",
        "  red",
        "red",
    )
    assert Colour("red") is Colour.RED
    assert {str(Colour.RED), "red"} == {"red"}


def test_a_file_has_the_digest_of_its_bytes() -> None:
    data = bytes(range(256)) * 5000
    assert sha256_of(io.BytesIO(data)) == hashlib.sha256(data).hexdigest()
    assert sha256_of(io.BytesIO(b"")) == hashlib.sha256().hexdigest()


def test_utc_is_no_hour_away() -> None:
    assert datetime.now(UTC).utcoffset() == timedelta(0)


def test_toml_is_read() -> None:
    assert toml.loads('root = "/x"')["root"] == "/x"


def test_a_process_leads_a_group_of_its_own() -> None:
    done = process.run(["python3", "-c", "import os; print(os.getpid() == os.getpgrp())"])
    assert done.out.strip() == "True"
    assert len(NEW_GROUP) == 1
