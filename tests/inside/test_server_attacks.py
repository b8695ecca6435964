"""Attacks fired at the server on transformers itself, a process of its own, each bounded: run inside a built image by
tests/engine/test_inside.py.

By hand: PYTHON_WITH_TORCH -m pytest --noconftest tests/inside/test_server_attacks.py
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench import firing, payloads
from bench.firing import CHAT, Fired, Reply
from images.core import process
from images.proof.tiny_model import checkpoint
from images.proof.tiny_model.golden import ROOTFS

MB = 2**20
PORT = 8123
# Small numbers, so that little load shows that the limits hold.
SETTINGS = {
    "CARDSTOCK_FETCH": "any",
    "CARDSTOCK_FETCH_TIMEOUT": "60",
    "CARDSTOCK_HEADER_TIMEOUT": "3",
    "CARDSTOCK_BODY_TIMEOUT": "5",
    "CARDSTOCK_MAX_CONNECTIONS": "64",
    "CARDSTOCK_MAX_OPEN_MEGAPIXELS": "66",
}


@dataclass(frozen=True)
class Server:
    """The running server."""

    memory: firing.Memory

    def fire(self, attack: Callable[[], Sequence[Reply]]) -> Fired:
        """Fire; /health must answer all the while, and an ordinary request afterwards."""
        fired = firing.fire(PORT, self.memory, attack)
        assert fired.health.well == fired.health.asked > 0
        assert ordinary().status == 200
        return fired

    def fire_one(self, body: bytes) -> Fired:
        """A chat request with this body."""
        return self.fire(lambda: [firing.send(PORT, payloads.request(CHAT, body))])


def ordinary() -> Reply:
    """A right, small request."""
    return firing.send(PORT, payloads.request(CHAT, payloads.chat("tiny")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = checkpoint.write_checkpoint(tmp_path_factory.mktemp("model") / "tiny").folder
    log = tmp_path_factory.mktemp("log") / "server"
    argv = [sys.executable, "-B", str(ROOTFS / "server.py"), "--model", str(folder), "--served-model-name", "tiny",
            "--host", "127.0.0.1", "--port", str(PORT), "--device", "cpu"]  # fmt: skip
    pid = process.start_daemon(argv, log, env=SETTINGS)
    deadline = time.monotonic() + 120
    while ordinary().status != 200:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    yield Server(firing.Memory(lambda words: process.run(words).out, pid))
    os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (payloads.wide_body("tiny", 10), 400),
        (payloads.wide_body("tiny", 2), 400),
        (payloads.nested_lists("tiny", 60), 400),
        (payloads.deep_body("tiny", 10), 400),
        (payloads.quotes("tiny", 60), 400),
        (payloads.chat("tiny", "a" * (3 * MB)), 413),
        (payloads.chat("tiny", "data:" + "a" * (3 * MB)), 413),
        (b'"' + b"a" * (65 * MB) + b'"', 413),
    ],
    ids=["wide", "wide in little", "lists", "deep", "quotes", "text", "text like a picture", "long"],
)
def test_a_body_that_would_cost_a_parser_too_much_costs_no_more_than_itself(
    server: Server, body: bytes, status: int
) -> None:
    fired = server.fire_one(body)
    assert fired.statuses == [status]
    assert fired.growth < 3 * len(body) + 64 * MB


def test_a_text_to_stop_at_is_short_and_costs_nothing(server: Server) -> None:
    refused = server.fire_one(payloads.long_stop("tiny", 1_000_000))
    assert refused.statuses == [400] and "at most 1024 characters" in refused.replies[0].body
    assert server.fire_one(payloads.chat("tiny", stop=["a" * 1024] * 4, max_tokens=64)).statuses == [200]
    assert server.fire_one(payloads.chat("tiny", stop=["a"] * 1000)).statuses == [400]


def test_bodies_that_never_end_share_a_bounded_memory_and_are_cut(server: Server) -> None:
    begun, closed = payloads.begun_body(40), 0

    def attack() -> Sequence[Reply]:
        nonlocal closed
        with firing.lines_held(PORT, begun, 12) as held:
            beside = ordinary()
            closed = firing.closed_within(held, 60)
        return [beside]

    fired = server.fire(attack)
    assert fired.statuses == [200], "a small request gets in while large ones fill what bodies share"
    assert closed == 12
    assert fired.growth < (128 + 120) * MB, "12 bodies of 40 MB would be 480"


@pytest.mark.parametrize("begun", [b"", payloads.half_headers(), b"GET /health HTTP/1.1\r\n"])
def test_requests_that_never_begin_hold_back_nobody_and_are_cut(server: Server, begun: bytes) -> None:
    closed = 0

    def attack() -> Sequence[Reply]:
        nonlocal closed
        with firing.lines_held(PORT, begun, 200) as held:
            beside = [ordinary() for _ in range(3)]
            closed = firing.closed_within(held, 60)
        return beside

    fired = server.fire(attack)
    assert fired.statuses == [200, 200, 200] and closed == 200
    assert fired.growth < 32 * MB


def test_a_body_in_chunks_of_a_byte_does_not_silence_the_server(server: Server) -> None:
    head = payloads.request(CHAT, b"", content_length="", transfer_encoding="chunked")
    fired = server.fire(lambda: [firing.send(PORT, head + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n")])
    assert fired.statuses == [400] and fired.health.asked > 1


def test_headers_without_end_are_refused(server: Server) -> None:
    raw = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"a" * MB
    assert server.fire(lambda: [firing.send(PORT, raw)]).statuses in ([400], [0])


def test_large_pictures_of_several_requests_are_opened_one_after_the_other(server: Server) -> None:
    large = payloads.data_url(payloads.png(8000, 8000))
    body = payloads.request(CHAT, payloads.with_pictures("tiny", [large] * 3))
    fired = server.fire(lambda: firing.send_all(PORT, [body] * 2, 300))
    assert fired.statuses == [200, 200]
    assert fired.growth < 1400 * MB, "six such pictures at once would be three gigabytes"


@pytest.mark.parametrize(
    ("width", "height", "why"),
    [(9000, 8000, "9000 x 8000 pixels"), (50_000, 50_000, "DecompressionBombError"), (20_000, 20, "200 times")],
)
def test_a_picture_too_large_is_refused_by_its_header(server: Server, width: int, height: int, why: str) -> None:
    picture = payloads.png(width, height, rows=1)
    fired = server.fire_one(payloads.with_pictures("tiny", [payloads.data_url(picture)] * 8))
    assert fired.statuses == [400] and why in fired.replies[0].body
    assert fired.growth < 32 * MB


@contextmanager
def slow_pictures() -> Iterator[tuple[str, threading.Event, list[str]]]:
    """A server whose pictures come when the event is set; and which were asked for."""
    hold, asked = threading.Event(), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            hold.wait(60)
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", hold, asked
    hold.set()
    httpd.shutdown()
    httpd.server_close()


def test_slow_pictures_of_one_request_hold_back_nobody_else(server: Server) -> None:
    with slow_pictures() as (url, hold, asked):
        body = payloads.request(CHAT, payloads.with_pictures("tiny", [f"{url}/{n}" for n in range(8)]))

        def attack() -> Sequence[Reply]:
            answers: list[Reply] = []
            slow = threading.Thread(target=lambda: answers.append(firing.send(PORT, body, 90)))
            slow.start()
            deadline = time.monotonic() + 30
            while not asked:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            beside = [ordinary(), ordinary()]
            assert not hold.is_set() and not answers
            hold.set()
            slow.join(60)
            return [*beside, *answers]

        fired = server.fire(attack)
    assert fired.statuses == [200, 200, 400] and len(asked) <= 2, "two at a time; the first that fails is the last"


def test_half_a_character_a_wrong_method_and_pages_of_strangers_are_refused(server: Server) -> None:
    chat = payloads.chat("tiny")
    for raw, status in (
        (payloads.request(CHAT, payloads.surrogate("tiny")), 400),
        (payloads.request(CHAT, chat, content_type="text/plain"), 415),
        (payloads.request(CHAT, chat, content_type=""), 415),
        (payloads.request(CHAT, chat, content_type="application/x-www-form-urlencoded"), 415),
        (payloads.request(CHAT, chat, origin="https://evil.example"), 403),
        (payloads.request(CHAT, chat, origin="null"), 403),
        (payloads.request(CHAT, chat, host="evil.example"), 403),
        (payloads.request(CHAT, chat, host="a/health?"), 403),
        (payloads.request(CHAT, chat, origin=f"http://127.0.0.1:{PORT}", host=f"127.0.0.1:{PORT}"), 200),
    ):
        assert server.fire(lambda raw=raw: [firing.send(PORT, raw)]).statuses == [status]  # type: ignore[misc]
    wrong = firing.send(PORT, b"GET /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")


def test_errors_tell_no_address_of_memory(server: Server) -> None:
    fired = server.fire_one(payloads.with_pictures("tiny", ["data:image/png;base64,AAAA"]))
    assert fired.statuses == [400] and "0x" not in fired.replies[0].body
