"""Connections: how many there may be, and how long one may take to send its request or to take its answer.

uvicorn has a time for the pause between two requests, and h11 a limit of bytes for headers; a connection that sends
nothing, half a header or a body byte by byte it would keep for ever. Where all places are taken, the connection that
has taken longest to send its request gives way to the new one: so /health answers while somebody holds hundreds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 16 * 1024
READ_BYTES = 32 * 1024  # at a time: h11 takes ten microseconds for each chunk of a body, and one may have a single byte
GRACE = 5.0  # seconds in which a body's reader may say that it took too long, before the connection is cut


@dataclass(frozen=True)
class ConnectionLimits:
    """``most`` at a time; seconds until the headers are there, then until the body is; ``unread_seconds`` in which a
    client must take something of what was sent.
    """

    most: int = 256
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    unread_seconds: float = 60.0


def protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """uvicorn's protocol within ``limits``."""

    class Limited(_Limited):
        within = limits

    return Limited


class _Limited(H11Protocol):  # type: ignore[misc,unused-ignore]
    within: ConnectionLimits
    # What is waited for: "headers", "body", or "" while the request is whole and its answer is being made.
    awaits = ""
    since = 0.0
    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type,unused-ignore]
        line = transport.get_extra_info("socket")
        if line is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            with contextlib.suppress(OSError):
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.within.unread_seconds * 1000))
        if hasattr(transport, "max_size"):  # asyncio's own; it would read 256 kB before anything else has its turn
            transport.max_size = READ_BYTES
        self._look()
        if len(self.connections) > self.within.most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Set the alarm anew when something else is waited for."""
        state = self.conn.their_state
        awaits = {h11.IDLE: "headers", h11.SEND_BODY: "body"}.get(state, "")
        if awaits == self.awaits:
            return
        self._stop()
        self.awaits, self.since = awaits, self.loop.time()
        if awaits:
            seconds = self.within.header_seconds if awaits == "headers" else self.within.body_seconds + GRACE
            self._alarm = self.loop.call_later(seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _make_room(self) -> None:
        """Cut the connection that costs least: one that waits for headers, then for a body, then one nobody reads."""

        def cost(other: Any) -> tuple[int, float]:
            if other.awaits:
                return ("headers", "body").index(other.awaits), other.since
            return (2, other.since) if other.flow.write_paused else (3, 0.0)

        victim = min((other for other in self.connections if other is not self), key=cost)
        (victim if cost(victim)[0] < 3 else self).transport.abort()
