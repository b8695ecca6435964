"""A blob's bytes as they come: resumed, checked at their end, with the login for its own host alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.core import RegistryFailure, Unsafe
from images.registry import Blob, Repository, digest_of
from tests.helpers.registries import Asked, FakeRegistry, Fault, Reply, registry

DATA = b"".join(b"%d " % number for number in range(300_000))
BLOB = Blob("tar", digest_of(DATA), len(DATA))


class Place:
    """A repository of a registry in memory that has the blob."""

    def __init__(self, host: str, shelf: FakeRegistry) -> None:
        self.host, self.shelf = host, shelf
        self.waits: list[float] = []
        self.came: list[int] = []
        shelf.blobs[BLOB.digest] = DATA
        self.repository = Repository(f"{host}/team/thing", sleep=self.waits.append)

    def read(self, blob: Blob = BLOB) -> bytes:
        return b"".join(self.repository.stream(blob, self.came.append))


@pytest.fixture
def place() -> Iterator[Place]:
    with registry() as (host, shelf):
        yield Place(host, shelf)


def test_the_bytes_come_in_order(place: Place) -> None:
    assert place.read() == DATA
    assert sum(place.came) == len(DATA)
    assert (place.waits, len(place.shelf.asked)) == ([], 1)


def test_an_empty_blob(place: Place) -> None:
    place.shelf.blobs[digest_of(b"")] = b""
    assert place.read(Blob("tar", digest_of(b""), 0)) == b""


@pytest.mark.parametrize("fault", ["cut", "short", "reset", 503, 429])
def test_what_breaks_off_goes_on(place: Place, fault: Fault) -> None:
    place.shelf.on, place.shelf.faults = "/blobs/", [fault] * 3
    stream = place.repository.stream(BLOB, place.came.append)
    assert b"".join(stream) == DATA
    assert len(place.waits) == 3
    assert stream.resumed == (fault in ("cut", "short"))


def test_a_line_that_breaks_off_again_and_again_but_brings_something_is_borne(place: Place) -> None:
    def rule(asked: Asked) -> Reply | None:
        """Half of what is left, without a length."""
        begin = int(asked.headers.get("Range", "bytes=0-")[6:-1])
        left = DATA[begin:]
        return Reply(206 if begin else 200, [left[: len(left) // 2]] if len(left) > 1000 else [left])

    place.shelf.rules.append(rule)
    assert place.read() == DATA
    assert len(place.waits) > 9  # more than one request may break off


def test_one_that_brings_nothing_ends(place: Place) -> None:
    place.shelf.on, place.shelf.faults = "/blobs/", ["reset"] * 20
    with pytest.raises(RegistryFailure, match="does not give"):
        place.read()


def test_too_many_breaks_end_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.registry.blob_stream._MOST_BREAKS", 2)
    place.shelf.on, place.shelf.faults = "/blobs/", ["cut"] * 3
    with pytest.raises(RegistryFailure, match="breaks off again and again"):
        place.read()


@pytest.mark.parametrize("status", [416, 200])
def test_where_no_rest_is_given_the_whole_is_read_and_passed_over(place: Place, status: int) -> None:
    def rule(asked: Asked) -> Reply | None:
        if "/blobs/" in asked.path and "Range" in asked.headers:
            return Reply(status, b"" if status == 416 else DATA)
        return None

    place.shelf.rules.append(rule)
    place.shelf.on, place.shelf.faults = "/blobs/", ["cut"]
    assert place.read() == DATA
    assert sum(place.came) > len(DATA)


def test_another_rest_than_was_asked_for_is_not_taken(place: Place) -> None:
    def rule(asked: Asked) -> Reply | None:
        if "/blobs/" in asked.path and "Range" in asked.headers:
            return Reply(206, DATA[5:], (("Content-Range", f"bytes 5-{len(DATA) - 1}/{len(DATA)}"),))
        return None

    place.shelf.rules.append(rule)
    place.shelf.on, place.shelf.faults = "/blobs/", ["cut"]
    assert place.read() == DATA


def test_other_bytes_are_refused_at_their_end(place: Place) -> None:
    place.shelf.blobs[BLOB.digest] = DATA[:-1] + b"x"
    pieces = []
    with pytest.raises(Unsafe, match="not what its digest says"):
        for piece in place.repository.stream(BLOB):
            pieces.append(piece)
    assert b"".join(pieces) == DATA[:-1] + b"x"


def test_more_bytes_are_refused(place: Place) -> None:
    place.shelf.blobs[BLOB.digest] = DATA + b"more"
    with pytest.raises(Unsafe):
        place.read()


def test_what_is_no_digest_is_not_asked_for(place: Place) -> None:
    with pytest.raises(RegistryFailure, match="no sha256 digest"):
        place.read(Blob("tar", "../../x", 1))
    assert place.shelf.asked == []


# -- parts


def test_parts(place: Place) -> None:
    for begin, length in ((0, 1), (1000, 5000), (len(DATA) - 7, 7)):
        assert place.repository.part(BLOB, begin, length, place.came.append) == DATA[begin : begin + length]
    assert sum(place.came) == 5008
    for begin, length in ((-1, 2), (0, 0), (len(DATA), 1), (0, len(DATA) + 1)):
        with pytest.raises(ValueError, match="bytes at"):
            place.repository.part(BLOB, begin, length)


def test_a_registry_without_parts(place: Place) -> None:
    place.shelf.ranges = False
    assert place.repository.part(BLOB, 10, 10, place.came.append) is None
    assert sum(place.came) == 0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(206, b"0123456789", (("Content-Range", "bytes 0-9/100"),)),
        Reply(206, b"0123456789 and more"),
        Reply(416),
    ],
)
def test_another_part_than_was_asked_for_is_none(place: Place, reply: Reply) -> None:
    place.shelf.rules.append(lambda asked: reply if "Range" in asked.headers else None)
    assert place.repository.part(BLOB, 10, 10) is None


def test_a_part_that_breaks_off_comes_again(place: Place) -> None:
    place.shelf.on, place.shelf.faults = "/blobs/", ["reset", 502]
    assert place.repository.part(BLOB, 10, 10) == DATA[10:20]
    assert len(place.waits) == 2


def test_the_login_goes_to_its_own_host_alone(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    login = base64.b64encode(b"me:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {place.host: {"auth": login}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    place.shelf.login = f"Basic {login}"
    with registry() as (other, elsewhere):
        place.shelf.elsewhere = other
        elsewhere.blobs[BLOB.digest] = DATA
        elsewhere.on, elsewhere.faults = "/blobs/", ["cut"]
        assert place.read() == DATA
        assert place.repository.part(BLOB, 5, 5) == DATA[5:10]
    assert set(elsewhere.logins) == {""}
    assert set(place.shelf.logins) == {"", f"Basic {login}"}
