"""Connections that send half of their headers, none, or too many: cut by timers on uvicorn's protocol."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.guarded import guard_settings

from guard import connections  # type: ignore[import-not-found,unused-ignore] # isort: skip


@dataclass
class Line:
    """A transport."""

    written: bytes = b""
    closed: bool = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closed


@dataclass
class Cycle:
    """A request under way, as uvicorn keeps it."""

    response_complete: bool = False


def protocol(**environment: str) -> Any:
    """A class like uvicorn's: a request begins with the bytes that end in an empty line."""

    @dataclass(eq=False)
    class Protocol:
        connections: set[Any] = field(default_factory=set)
        cycle: Cycle | None = None
        transport: Any = None
        lost: int = 0

        def connection_made(self, transport: Any) -> None:
            self.connections.add(self)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if data.endswith(b"\r\n\r\n"):
                self.cycle = Cycle()

        def connection_lost(self, _error: Exception | None) -> None:
            self.lost += 1

    connections.limit(Protocol, guard_settings.read(environment))
    return Protocol


SHORT = {"CARDSTOCK_HEADER_TIMEOUT": "1"}


def test_half_a_header_and_silence_are_cut() -> None:
    made = protocol(**SHORT)

    async def run() -> list[bool]:
        lines = [Line(), Line(), Line(), Line()]
        silent, half, whole, second = (made() for _ in lines)
        for one, line in zip((silent, half, whole, second), lines, strict=True):
            one.connection_made(line)
        half.data_received(b"GET / HTTP/1.1\r\nhost:")
        whole.data_received(b"GET / HTTP/1.1\r\n\r\n")
        second.data_received(b"GET / HTTP/1.1\r\n\r\n")
        second.cycle.response_complete = True
        second.data_received(b"GET / HT")
        await asyncio.sleep(0.6)
        half.data_received(b" x")  # a byte now and then gains no time
        second.data_received(b"TP")
        assert not any(line.closed for line in lines)
        await asyncio.sleep(0.7)
        return [line.closed for line in lines]

    assert asyncio.run(run()) == [True, True, False, True]


def test_a_request_at_work_and_one_that_is_gone_keep_no_timer() -> None:
    made = protocol(**SHORT)

    async def run() -> None:
        one, line = made(), Line()
        one.connection_made(line)
        one.connection_lost(None)
        await asyncio.sleep(1.1)
        assert not line.closed and one.lost == 1

    asyncio.run(run())


def test_headers_have_a_size() -> None:
    made = protocol()

    async def run() -> bytes:
        one, line = made(), Line()
        one.connection_made(line)
        for _ in range(65):
            one.data_received(b"a" * 1024)
        assert line.closed
        one.connection_lost(None)
        return line.written

    assert b" 431 " in asyncio.run(run())


def test_the_one_that_waits_longest_makes_room() -> None:
    made = protocol(CARDSTOCK_MAX_CONNECTIONS="2")

    async def run() -> list[bool]:
        shared: set[Any] = set()
        lines = [Line(), Line(), Line(), Line()]
        ones = [made(connections=shared) for _ in lines]
        ones[0].connection_made(lines[0])
        ones[0].data_received(b"\r\n\r\n")
        for one, line in list(zip(ones, lines, strict=True))[1:3]:
            await asyncio.sleep(0.01)
            one.connection_made(line)
        first = [line.closed for line in lines]
        ones[1].connection_lost(None)
        shared.discard(ones[1])
        ones[2].data_received(b"\r\n\r\n")
        ones[3].connection_made(lines[3])  # all others are at work
        assert b" 503 " in lines[3].written
        for one in ones:
            one.connection_lost(None)
        return [*first, *(line.closed for line in lines)]

    assert asyncio.run(run()) == [False, True, False, False, False, True, False, True]


def test_a_class_is_wrapped_once() -> None:
    made = protocol()
    before = made.connection_made
    connections.limit(made, guard_settings.read({}))
    assert made.connection_made is before
