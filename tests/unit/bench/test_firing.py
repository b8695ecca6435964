"""Attacks fired at a server of the test's own, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench import firing, payloads


@pytest.fixture
def port() -> Iterator[int]:
    """Answers 200 on /health, 413 to every POST before it reads the body, and hangs up on what is no request."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 0.2

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self.send_response(413)
            self.send_header("X-Why", "large")
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd.server_port
    httpd.shutdown()
    httpd.server_close()


def test_an_answer_that_comes_before_the_body_is_read(port: int) -> None:
    reply = firing.send(port, payloads.request("/x", b"a" * 100), 10)
    assert (reply.status, reply.body, reply.headers["x-why"]) == (413, "no", "large")
    assert [one.status for one in firing.send_all(port, [payloads.request("/x", b"a")] * 3, 10)] == [413] * 3


def test_no_answer_is_status_0() -> None:
    assert firing.send(1, b"x", 1) == firing.Reply(0)


def test_lines_are_held_and_those_the_server_closes_are_counted(port: int) -> None:
    with firing.lines_held(port, b"GET /hea", 5) as held:
        assert len(held) == 5 and firing.closed_within(held, 10) == 5


class FixedMemory(firing.Memory):
    """Tells what it is given."""

    def __init__(self, told: Sequence[str]) -> None:
        self.ran: list[Sequence[str]] = []
        lines = iter(told)

        def run(argv: Sequence[str]) -> str:
            self.ran.append(argv)
            return "" if argv[0] == "sh" else next(lines)

        super().__init__(run, 7)


def test_what_an_attack_does_is_told_with_memory_and_health(port: int) -> None:
    memory = FixedMemory(["VmHWM:\t 900 kB\nVmRSS:\t 100 kB\n", "VmHWM:\t 350 kB\nVmRSS:\t 90 kB\n"])
    fired = firing.fire(port, memory, lambda: [firing.send(port, payloads.request("/x", b"a"), 10)])
    assert fired.statuses == [413] and fired.growth == 250 * 1024
    assert fired.health.asked == fired.health.well >= 1
    assert memory.ran[0] == ["sh", "-c", "echo 5 > /proc/7/clear_refs"]
