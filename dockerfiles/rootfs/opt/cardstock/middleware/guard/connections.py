"""Limits of connections that uvicorn does not offer: time and size of a request's headers, and how many there are.

uvicorn has a timer for a connection on which nothing came yet after an answer, and none for one that sent half of its
headers, or nothing at all. httptools, which uvicorn takes where it is installed, has no limit for the headers' size
either; vLLM's --h11-… flags are for h11 alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
from typing import Any

from guard_settings import GuardSettings  # type: ignore[import-not-found,unused-ignore]

PROTOCOLS = (
    ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"),
    ("uvicorn.protocols.http.h11_impl", "H11Protocol"),
)
MOST_HEADERS = 64 * 1024
_TIMER, _BYTES, _SINCE = "_cardstock_timer", "_cardstock_bytes", "_cardstock_since"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def install(settings: GuardSettings) -> list[str]:
    """Put the limits on the protocols that uvicorn has; their names."""
    found = []
    for module, name in PROTOCOLS:
        try:
            protocol = getattr(importlib.import_module(module), name)
        except ImportError:
            continue
        limit(protocol, settings)
        found.append(name)
    return found


def limit(protocol: Any, settings: GuardSettings) -> None:
    """Wrap what a protocol does when a connection is made, when bytes come, and when it is lost. Once a class."""
    if getattr(protocol, "_cardstock", False):
        return
    made, received, lost = protocol.connection_made, protocol.data_received, protocol.connection_lost

    def connection_made(self: Any, transport: Any) -> None:
        made(self, transport)
        _end_unread(transport, settings.body_seconds)
        _watch(self, transport, settings.header_seconds)
        if len(self.connections) > settings.connections:
            _make_room(self)

    def data_received(self: Any, data: bytes) -> None:
        received(self, data)
        if not _waits(self):
            _unwatch(self)
            return
        so_far = getattr(self, _BYTES, 0) + len(data)
        setattr(self, _BYTES, so_far)
        if so_far > MOST_HEADERS and not self.transport.is_closing():
            self.transport.write(_LONG)
            self.transport.close()
        if getattr(self, _TIMER, None) is None:
            _watch(self, self.transport, settings.header_seconds)

    def connection_lost(self: Any, error: Exception | None) -> None:
        _unwatch(self)
        lost(self, error)

    protocol.connection_made, protocol.data_received, protocol.connection_lost = (
        connection_made,
        data_received,
        connection_lost,
    )
    protocol._cardstock = True


def _end_unread(transport: Any, seconds: int) -> None:
    """Let the kernel cut a connection whose client takes nothing of its answer for so long."""
    line = transport.get_extra_info("socket")
    if line is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def _make_room(newest: Any) -> None:
    """Cut the connection that has waited longest for its headers; where all others are at work, the newest."""
    waiting = [one for one in newest.connections if one is not newest and _waits(one) and hasattr(one, _SINCE)]
    oldest = min(waiting, key=lambda one: float(getattr(one, _SINCE)), default=None)
    if oldest is None:
        newest.transport.write(_BUSY)
    (oldest or newest).transport.close()


def _waits(protocol: Any) -> bool:
    """Whether no request is being answered: what came is part of headers."""
    cycle = getattr(protocol, "cycle", None)
    return cycle is None or bool(cycle.response_complete)


def _watch(protocol: Any, transport: Any, seconds: float) -> None:
    def expire() -> None:
        setattr(protocol, _TIMER, None)
        if _waits(protocol) and not transport.is_closing():
            transport.close()

    loop = asyncio.get_running_loop()
    setattr(protocol, _SINCE, loop.time())
    setattr(protocol, _TIMER, loop.call_later(seconds, expire))


def _unwatch(protocol: Any) -> None:
    timer = getattr(protocol, _TIMER, None)
    if timer is not None:
        timer.cancel()
        setattr(protocol, _TIMER, None)
    setattr(protocol, _BYTES, 0)
