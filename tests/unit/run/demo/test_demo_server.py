"""The server behind the page: its address, whether it answers, what is told when it does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from images.core.errors import CheckFailed, UsageError
from images.run.demo.server import find_model, is_loopback, parse_address
from images.run.demo.server_messages import error_sentence

MODELS = json.dumps({"object": "list", "data": [{"id": "one"}, {"id": "two"}]})


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        (" https://qwen.example.com/v1/ ", "https://qwen.example.com"),
        ("http://h/proxy/v1", "http://h/proxy"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_addresses(typed: str, expected: str) -> None:
    assert parse_address(typed) == expected


@pytest.mark.parametrize(
    "typed", ["", "ftp://x", "http://", "http://h:port", "http://h:99999", "http://h/?a=b", "http://["]
)
def test_what_is_no_address(typed: str) -> None:
    with pytest.raises(UsageError, match="is not a server's address"):
        parse_address(typed)


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h", False)]
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


Serve = Callable[[int, str], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server on loopback that always answers the same, but 401 to a wrong key; gives its address."""
    started: list[HTTPServer] = []

    def one(status: int, body: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                right = self.path == "/v1/models" and self.headers.get("Authorization") in (None, "Bearer right")
                self.send_response(status if right else 401)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield one
    for server in started:
        server.shutdown()
        server.server_close()


def test_the_first_model_or_the_wanted_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # a proxy that is not there: loopback goes past it
    url = serve(200, MODELS)
    assert find_model(url, environment={}) == "one"
    assert find_model(url, "two", {"OPENAI_API_KEY": "right"}) == "two"
    with pytest.raises(UsageError, match="no model 'three'") as caught:
        find_model(url, "three", {})
    assert (caught.value.do, caught.value.where) == ("--model one", "one, two")


def test_a_wrong_key(serve: Serve) -> None:
    with pytest.raises(CheckFailed, match=r"wants a key \(status 401\)") as caught:
        find_model(serve(200, MODELS), environment={"OPENAI_API_KEY": "wrong"})
    assert "$OPENAI_API_KEY" in caught.value.do


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "<html>"), (200, "[]"), (200, '{"data": []}'), (200, '{"data": 1}'), (404, "no"), (503, "")],
)
def test_what_is_no_such_server(serve: Serve, status: int, body: str) -> None:
    with pytest.raises(CheckFailed, match="does not speak the OpenAI API") as caught:
        find_model(serve(status, body), environment={})
    assert str(status) in caught.value.cause


def test_nobody_answers(serve: Serve) -> None:
    closed = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    closed.server_close()
    url = f"http://127.0.0.1:{closed.server_port}"
    with pytest.raises(CheckFailed, match=f"no server answers at {url}") as caught:
        find_model(url, environment={})
    assert caught.value.cause.startswith("nothing listens there")
    assert "--server URL" in caught.value.do


def failed(status: int | None, body: object) -> Exception:
    error = Exception("as the package says it")
    if status is not None:
        vars(error).update(vars(SimpleNamespace(status_code=status, body=body)))
    return error


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (None, None, "The server at URL does not answer. If it was stopped"),
        (500, {"message": "boom"}, "The server answered 500: boom"),
        (500, {"error": {"message": "boom"}}, "The server answered 500: boom"),
        (502, "<html>", "The server answered 502: as the package says it"),
        (400, {"message": "This model's maximum context length is 2048 tokens"}, "too long for the server. Clear it"),
        (400, {"message": "At most 1 image(s) may be provided"}, "takes fewer pictures in a request: At most 1"),
    ],
)
def test_trouble_in_words(status: int | None, body: object, message: str) -> None:
    assert message in error_sentence("URL", failed(status, body))
