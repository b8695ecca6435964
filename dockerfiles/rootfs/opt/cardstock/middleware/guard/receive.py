"""The body of a request, received within limits of bytes, of time, and of what all requests hold together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from budget import Budget, Share  # type: ignore[import-not-found,unused-ignore]
from guard_settings import MEGABYTE, GuardSettings  # type: ignore[import-not-found,unused-ignore]

from .access import Headers, values

DRAIN_SECONDS = 2.0
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Gone(Exception):
    """The client has hung up."""


class Body:
    """A body and its share of what all bodies may hold, which is held until `free`."""

    def __init__(self, budget: Budget) -> None:
        self._share = Share(budget)
        self.raw = b""
        self.whole = False

    def replace(self, raw: bytes) -> None:
        """Another body in its place. Raises ApiError 503."""
        self._share.take_now(max(0, len(raw) - self._share.amount))
        self.raw = raw

    def free(self) -> None:
        """Give everything back."""
        self._share.keep(0)
        self.raw = b""

    async def receive(self, receive: Receive, headers: Headers, settings: GuardSettings) -> None:
        """Receive all of it to ``raw``. Raises ApiError 400, 408, 413 or 503; Gone."""
        _check_length(values(headers, b"content-length"), settings.body)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(settings.body_seconds):
                while await self._part(receive, parts, settings.body):
                    pass
        except TimeoutError as error:
            raise ApiError(
                408,
                f"the request took longer than {settings.body_seconds} s to arrive (CARDSTOCK_BODY_TIMEOUT)",
                code="too_slow",
            ) from error
        self.raw = b"".join(parts)

    async def _part(self, receive: Receive, parts: list[bytes], most: int) -> bool:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        part = message.get("body", b"")
        if part:
            if self._share.amount + len(part) > most:
                raise _too_large(most)
            self._share.take_now(len(part))
            parts.append(part)
        self.whole = not message.get("more_body", False)
        return not self.whole


async def drained(receive: Receive, headers: Headers, most: int) -> bool:
    """Whether the rest of a body that is refused has come, and was thrown away, within limits.

    A client that still sends when the connection is closed may never read why. One that asks first is told at once.
    """
    if values(headers, b"expect"):
        return False
    left = most
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request":
                    return False
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        pass
    return False


def _check_length(given: Sequence[str], most: int) -> None:
    if given and not (given[0].isascii() and given[0].isdigit()):
        raise ApiError(400, "the Content-Length is not a number", code="invalid_length")
    if given and int(given[0][:20]) > most:
        raise _too_large(most)


def _too_large(most: int) -> ApiError:
    return ApiError(
        413, f"the request is larger than {most // MEGABYTE} MB (CARDSTOCK_MAX_BODY_MB)", code="request_too_large"
    )
