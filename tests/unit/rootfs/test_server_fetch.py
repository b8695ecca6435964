"""Fetching a picture that a request names: which addresses, how much, how long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from images.proof.tiny_model import picture

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import fetch  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """A web server on loopback: /ok, /big, /slow, /loop, /away (redirects), and anything else 404."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            places = {"/loop": "/loop", "/away": "/ok", "/out": "file:///etc/passwd"}
            status = 200 if self.path in ("/ok", "/big", "/slow") else 302 if self.path in places else 404
            self.send_response(status)
            if self.path in places:
                self.send_header("Location", places[self.path])
            self.end_headers()
            if self.path == "/ok":
                self.wfile.write(b"picture")
            if self.path == "/big":
                self.wfile.write(b"x" * 2000)
            for _ in range(100 if self.path == "/slow" else 0):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.05)

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", asked
    httpd.shutdown()
    httpd.server_close()


def test_a_private_address_is_not_even_connected_to(web: tuple[str, list[str]]) -> None:
    with pytest.raises(ApiError, match="not a public address"):
        fetch.load(f"{web[0]}/ok", fetch.Limits("public"))
    with pytest.raises(ApiError, match="fetches no picture by its address"):
        fetch.load(f"{web[0]}/ok", fetch.Limits("off"))
    assert web[1] == []


def test_a_redirect_is_checked_like_the_first_address(
    web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda _: len(web[1]) == 0)
    with pytest.raises(ApiError, match="not a public address"):
        fetch.load(f"{web[0]}/away", fetch.Limits("public"))
    assert web[1] == ["/away"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "answered 404"), ("/big", "larger than 1000"), ("/loop", "redirects"), ("/out", "http or https"),
        ("/slow", "too long|could not be fetched"),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_says_why(web: tuple[str, list[str]], path: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(ApiError, match=reason) as caught:
        fetch.load(web[0] + path, fetch.Limits("any", 1000, 0.5))
    assert caught.value.status == 400 and time.monotonic() - start < 3


def test_a_fetched_picture_arrives_also_behind_a_redirect(web: tuple[str, list[str]]) -> None:
    assert fetch.load(f"{web[0]}/ok", fetch.Limits("any")) == b"picture"
    assert fetch.load(f"{web[0]}/away", fetch.Limits("any")) == b"picture"
    with pytest.raises(ApiError, match="could not be fetched"):
        fetch.load("http://127.0.0.1:1/", fetch.Limits("any"))


def test_a_data_url_larger_than_allowed_is_refused() -> None:
    with pytest.raises(ApiError, match="larger"):
        fetch.load(picture.data_url("red"), fetch.Limits(bytes=1000))


def test_nothing_is_fetched_unless_it_is_allowed(web: tuple[str, list[str]]) -> None:
    for limits in (fetch.Limits(), fetch.Limits("off", domains=("127.0.0.1",))):
        with pytest.raises(ApiError, match="--allow-media-domain"):
            fetch.load(f"{web[0]}/ok", limits)
    assert web[1] == []


def test_hosts_that_are_named_are_fetched_from_and_no_others_also_behind_a_redirect(
    web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = fetch.Limits("any", domains=("127.0.0.1",))
    assert fetch.load(f"{web[0]}/ok", named) == b"picture"
    elsewhere = web[0].replace("127.0.0.1", "localhost")
    with pytest.raises(ApiError, match="not among the hosts"):
        fetch.load(f"{elsewhere}/ok", named)
    monkeypatch.setattr(fetch, "_get", lambda *_: (302, f"{elsewhere}/ok"))
    with pytest.raises(ApiError, match="redirects"):
        fetch.load(f"{web[0]}/ok", fetch.Limits("any", domains=("*",)))
    monkeypatch.undo()
    assert fetch.load(f"{elsewhere}/ok", fetch.Limits("any", domains=("*",))) == b"picture"
    with pytest.raises(ApiError, match="not a public address"):
        fetch.load(f"{web[0]}/ok", fetch.Limits("public", domains=("127.0.0.1",)))


def test_redirects_may_be_off(web: tuple[str, list[str]]) -> None:
    with pytest.raises(ApiError, match="more than 0 redirects"):
        fetch.load(f"{web[0]}/away", fetch.Limits("any", redirects=0))


def test_a_closed_port_and_a_name_that_is_not_there_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(url: str) -> str:
        with pytest.raises(ApiError) as caught:
            fetch.load(url, fetch.Limits("any", seconds=0.5))
        return str(caught.value.message)

    closed = told("http://127.0.0.1:1/")

    def resolver(*_: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr(fetch, "resolve", resolver)
    assert told("http://nowhere.example/") == closed and "Refused" not in closed


def test_the_address_that_was_looked_up_is_the_one_that_is_connected_to(
    web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that has another address the second time (DNS rebinding) is looked up once."""
    asked: list[str] = []

    def resolver(host: str, *_: Any) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(fetch, "resolve", resolver)
    url = web[0].replace("127.0.0.1", "rebound.example")
    assert fetch.load(f"{url}/ok", fetch.Limits("any")) == b"picture"
    assert asked == ["rebound.example"]
    monkeypatch.setattr(fetch, "resolve", lambda *_: ["8.8.8.8", "127.0.0.1"])
    with pytest.raises(ApiError, match="not a public address"):
        fetch.load(f"{url}/ok", fetch.Limits("public"))


def test_an_address_that_does_not_answer_gives_way_to_the_next(
    web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "resolve", lambda *_: ["127.0.0.2", "127.0.0.1"])
    assert fetch.load(f"{web[0]}/ok", fetch.Limits("any")) == b"picture"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("data:,\ud800", "no text"), ("data:;base64,\ud800", "no text"), ("data:nocomma", "no comma"),
        ("data:," + "%41" * 5000, "escapes"), ("http://127.0.0.1/" + "a" * 9000, "at most 8192"),
        ("ftp://x", "must begin with"), ("http:", "could not be fetched|stay with"), ("http://[::1", "could not"),
        ("http://127.0.0.1:99999/", "could not"), ("http://\ud800/", "could not"), ("", "must begin with"),
    ],
)  # fmt: skip
def test_a_wrong_url_is_refused_and_nothing_else_happens(url: str, why: str) -> None:
    with pytest.raises(ApiError, match=why) as caught:
        fetch.load(url, fetch.Limits("any", seconds=1))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("environment", "mode", "domains"),
    [
        ({}, "off", ()), ({"CARDSTOCK_FETCH": "any"}, "any", ()), ({"CARDSTOCK_MEDIA_DOMAINS": "B.org a.org"}, "public",
         ("a.org", "b.org")), ({"CARDSTOCK_MEDIA_DOMAINS": "a.org", "CARDSTOCK_FETCH": "off"}, "off", ("a.org",)),
    ],
)  # fmt: skip
def test_limits_come_from_the_environment(environment: dict[str, str], mode: str, domains: tuple[str, ...]) -> None:
    found = fetch.limits_from(environment)
    assert (found.mode, found.domains, found.bytes, found.seconds) == (mode, domains, 20 * 2**20, 10)


@pytest.mark.parametrize("wrong", [{"CARDSTOCK_FETCH": "yes"}, {"CARDSTOCK_FETCH_TIMEOUT": "0"},
                                   {"CARDSTOCK_MAX_IMAGE_MB": "²"}])  # fmt: skip
def test_limits_that_make_no_sense_are_an_error(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be"):
        fetch.limits_from(wrong)
