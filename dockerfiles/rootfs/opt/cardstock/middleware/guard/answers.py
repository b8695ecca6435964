"""Answers on their way out: refusals in OpenAI's form, and addresses of memory cut out of errors."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]

Send = Callable[[dict[str, Any]], Awaitable[None]]
RETRY_AFTER = 2
# The longest error that is passed on; of a longer one the beginning is told: vLLM names each of 10,000 wrong values.
MOST_ERROR, TOLD = 2**16, 1000
_ADDRESS = re.compile(rb"0x[0-9a-fA-F]{6,16}\b")
_STREAMED_ERROR = (b'data: {"error"', b'data: {"object":"error"', b'data: {"object": "error"')


def without_addresses(text: bytes) -> bytes:
    """Python tells of an object without a text of its own where it lies: a help for who wants to write there."""
    return _ADDRESS.sub(b"0x...", text)


async def refuse(send: Send, error: ApiError, *, close: bool = False) -> None:
    """The whole answer for an error; ``close``: the connection ends with it."""
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"retry-after", str(RETRY_AFTER).encode())] if error.status == 503 else []
    headers += [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
    headers += [(b"connection", b"close")] if close else []
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Answer:
    """Passes an answer on as it comes; an error is held back until it is whole. ``began`` is called with its start."""

    def __init__(self, send: Send, began: Callable[[], None]) -> None:
        self._send, self._began = send, began
        self._start: dict[str, Any] | None = None
        self._error = b""
        self._streamed = False

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._began()
            self._streamed = _typed(message.get("headers", ()), b"text/event-stream")
            if message["status"] >= 400 and not self._streamed:
                self._start = message
                return
        elif message["type"] == "http.response.body" and self._start is not None:
            self._error += message.get("body", b"")[: MOST_ERROR + 1 - len(self._error)]
            if not message.get("more_body", False):
                await self._finish(self._start)
            return
        elif self._streamed and message.get("body", b"").startswith(_STREAMED_ERROR):
            message = {**message, "body": without_addresses(message["body"])}
        await self._send(message)

    async def _finish(self, start: dict[str, Any]) -> None:
        body = without_addresses(self._error)
        kept = [pair for pair in start.get("headers", ()) if pair[0].lower() != b"content-length"]
        if len(self._error) > MOST_ERROR:
            told = body[:TOLD].decode(errors="replace")
            body = json.dumps(ApiError(start["status"], f"{told} ... (cut off)", code="long_error").body()).encode()
            kept = [
                *(pair for pair in kept if pair[0].lower() != b"content-type"),
                (b"content-type", b"application/json"),
            ]
        await self._send({**start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await self._send({"type": "http.response.body", "body": body})


def _typed(headers: Sequence[tuple[bytes, bytes]], kind: bytes) -> bool:
    return any(name.lower() == b"content-type" and value.lower().startswith(kind) for name, value in headers)
