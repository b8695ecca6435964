"""The body of a request: read within limits of bytes and time, measured, then parsed and checked. It fetches nothing.

FastAPI would read a whole body of any size before it asks for the key; so the endpoint reads it, after the key. What
is large is measured and parsed in a thread. Pictures (strings that begin with data:) do not count as text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import json_shape  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from budget import Budget, Share  # type: ignore[import-not-found,unused-ignore]
from openai_api import ChatRequest  # type: ignore[import-not-found,unused-ignore]
from pydantic import ValidationError
from pydantic_core import from_json
from request_errors import refusal  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]
from starlette.requests import Request

# Commas and brackets: MAX_PARTS of openai_api.py, each a message of its own, have half as many.
MAX_ELEMENTS, MAX_DEPTH = 100_000, 64
FREE = 64 * 1024  # bytes of each body that count for nothing: who asks with text gets in when pictures fill the memory
SMALL = 256 * 1024  # bytes that are parsed at once; more goes to a thread


class Bodies:
    """Reads bodies; all that are being read or worked on share ``max_bodies`` bytes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._budget = Budget(settings.max_bodies, "bodies", "bytes")
        self._parsing = ThreadPoolExecutor(1, "parse")

    def share(self) -> Share:
        """What one request will hold of them."""
        return Share(self._budget)

    async def read(self, request: Request, share: Share) -> ChatRequest:
        """A body as a request. Raises ApiError: 400, 408 (too slow), 413 (too large), 503 (too many at once)."""
        limits = self._settings
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > limits.max_body:
            raise _too_large(limits.max_body)
        try:
            async with asyncio.timeout(limits.body_seconds):
                body = await read(request.stream(), limits.max_body, share)
        except TimeoutError:
            raise ApiError(408, f"the request did not arrive within {limits.body_seconds} s", code="too_slow") from None
        if len(body) <= SMALL:
            return as_request(body, limits.max_text)
        return await asyncio.get_running_loop().run_in_executor(self._parsing, as_request, body, limits.max_text)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request is larger than {limit} bytes", code="request_too_large")


async def read(blocks: AsyncIterator[bytes], limit: int, share: Share) -> bytearray:
    """The bytes of a body; all but the first `FREE` are taken from ``share``. Raises ApiError 413 beyond ``limit``
    bytes, without reading on, and 503.
    """
    body = bytearray()
    async for block in blocks:
        if len(body) + len(block) > limit:
            raise _too_large(limit)
        share.take_now(max(0, len(body) + len(block) - FREE) - share.amount)
        body += block
    return body


def as_request(body: bytes | bytearray, max_text: int) -> ChatRequest:
    """Measured, parsed and checked. Raises ApiError 400 or 413."""
    measure(body, max_text)
    return check(parse(body))


def measure(body: bytes | bytearray, max_text: int) -> None:
    """Raises ApiError 413 for more than ``max_text`` bytes beside the pictures, 400 for too many values."""
    shape = json_shape.measure(body, MAX_ELEMENTS, MAX_DEPTH)
    if reason := json_shape.fault(shape, MAX_ELEMENTS, MAX_DEPTH):
        raise ApiError(400, reason, code="request_too_large")
    if (text := len(body) - shape.data) > max_text:
        raise ApiError(413, f"the request has {text} bytes beside its pictures; {max_text} are taken "
                            "(CARDSTOCK_MAX_TEXT_MB)", code="request_too_large")  # fmt: skip


def parse(body: bytes | bytearray) -> Any:
    """JSON as Python values. Raises ApiError 400 for what is no JSON, half a character, or nested too deeply."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body cannot be read as JSON: {error}") from error


def check(content: Any) -> ChatRequest:
    """A body's content as a request. Raises ApiError 400 with what is wrong."""
    try:
        return ChatRequest.model_validate(content)
    except ValidationError as error:
        raise refusal(error, content) from error
