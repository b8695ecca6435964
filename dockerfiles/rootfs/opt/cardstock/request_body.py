"""The body of a request: read within a limit of bytes, then parsed and checked. It fetches nothing.

FastAPI would read a whole body of any size before it asks for the key; so reading is a dependency of the endpoint,
and comes after the key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from openai_api import ChatRequest  # type: ignore[import-not-found,unused-ignore]
from pydantic import ValidationError
from pydantic_core import from_json
from request_errors import refusal  # type: ignore[import-not-found,unused-ignore]


async def read(blocks: AsyncIterator[bytes], limit: int) -> bytearray:
    """The bytes of a body. Raises ApiError 413 beyond ``limit`` bytes, without reading on."""
    body = bytearray()
    async for block in blocks:
        body += block
        if len(body) > limit:
            raise ApiError(413, f"the request is larger than {limit} bytes", code="request_too_large")
    return body


def parse(body: bytes | bytearray) -> Any:
    """JSON as Python values. Raises ApiError 400 for what is no JSON, or is nested deeper than the parser goes."""
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
