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
import addresses  # type: ignore[import-not-found,unused-ignore]
import fetch  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.0.1", False), ("172.16.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),
        ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:127.0.0.1", False), ("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_only_public_addresses_are_fetched_from(address: str, public: bool) -> None:
    assert addresses.is_public(address) is public


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
