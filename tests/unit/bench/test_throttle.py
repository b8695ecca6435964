"""A slow line lets through what it says, counts what came, and ends with its block."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bench import throttle
from bench.throttle import CHUNK, RATE, TokenBucket, slow_line

ANSWER = bytes(range(256)) * 2000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Answering(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        if self.rfile.readline():
            self.wfile.write(ANSWER)


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """Answers each line of text with `ANSWER`, then closes."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield "127.0.0.1", made.server_address[1]
        made.shutdown()


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(b"hello\n")
        return b"".join(iter(lambda: line.recv(1 << 16), b""))


def test_the_rate_is_a_hundred_megabits() -> None:
    assert RATE * 8 == 100_000_000


def test_bytes_wait_for_those_before_them_whoever_asks() -> None:
    clock = Clock()
    bucket = TokenBucket(1000, burst=0, now=clock)
    assert [bucket.delay(500) for _ in range(3)] == [0.5, 1.0, 1.5]
    clock.now = 1.0
    assert bucket.delay(500) == 1.0  # half a second is still owed
    clock.now = 10.0
    assert bucket.delay(1000) == 1.0  # nothing was saved up


def test_a_pause_saves_up_one_burst_and_no_more() -> None:
    clock = Clock()
    bucket = TokenBucket(1000, burst=2000, now=clock)
    clock.now = 100.0
    assert bucket.delay(2000) == 0.0
    assert bucket.delay(1000) == 1.0


def test_what_comes_is_whole_and_counted_both_ways(server: tuple[str, int]) -> None:
    with slow_line(*server, rate=1e9) as line:
        assert [ask(line.port) for _ in range(3)] == [ANSWER] * 3
        assert (line.received, line.sent) == (3 * len(ANSWER), 3 * len(b"hello\n"))
    with pytest.raises(OSError, match="refused"):
        ask(line.port)


def test_every_chunk_asks_the_bucket(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    class Bucket(TokenBucket):
        def delay(self, count: int) -> float:
            taken.append(count)
            return 0.0

    monkeypatch.setattr(throttle, "TokenBucket", Bucket)
    with slow_line(*server) as line:
        assert ask(line.port) == ANSWER
    assert sum(taken) == len(ANSWER)
    assert max(taken) <= CHUNK


def test_a_registry_that_is_not_there_ends_the_connection_and_nothing_else() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = free.getsockname()[1]
    with slow_line("127.0.0.1", gone) as line:
        assert ask(line.port) == b""
        assert ask(line.port) == b""


def test_there_is_a_most_of_connections(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_CONNECTIONS", 0)
    with slow_line(*server) as line:
        with suppress(ConnectionError):  # it may be closed before what was sent to it is read
            assert ask(line.port) == b""
        assert line.received == 0


def test_the_block_ends_while_a_connection_is_open(server: tuple[str, int]) -> None:
    with slow_line(*server, rate=1) as line:
        still = socket.create_connection(("127.0.0.1", line.port), timeout=30)
        still.sendall(b"hello\n")
    with still, pytest.raises((ConnectionError, EOFError)):
        if not still.recv(1 << 20):
            raise EOFError
