"""What /openapi.json and /docs say beyond what FastAPI reads off the endpoints.

A dependency reads the request's body (request_body.py), and an answer may be a stream: FastAPI sees neither form.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from openai_answers import ChatCompletion, ChatCompletionChunk, ErrorBody  # type: ignore[import-not-found,unused-ignore]
from openai_api import ChatRequest  # type: ignore[import-not-found,unused-ignore]
from pydantic import TypeAdapter

PLACE = "#/components/schemas/{model}"
DESCRIPTION = (
    "OpenAI's chat API for one Qwen2.5-VL model on transformers. GET /metrics is for Prometheus. Where the server has "
    "a key, send it as Authorization: Bearer KEY."
)
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is wrong: the message says what."},
    401: {"model": ErrorBody, "description": "The server has a key, and it was not given."},
    404: {"model": ErrorBody, "description": "No such model here."},
    403: {"model": ErrorBody, "description": "The request's Host or Origin is not answered."},
    408: {"model": ErrorBody, "description": "The request did not arrive within CARDSTOCK_BODY_TIMEOUT."},
    413: {"model": ErrorBody, "description": "More than CARDSTOCK_MAX_BODY_MB, or than CARDSTOCK_MAX_TEXT_MB of text."},
    415: {"model": ErrorBody, "description": "Content-Type is not application/json."},
    500: {"model": ErrorBody, "description": "The server failed: its log says more."},
    503: {"model": ErrorBody, "description": "Too many requests wait, or memory ran out: ask again later."},
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatCompletion,
        "description": "The answer. With stream: true, events with one chunk each, then [DONE].",
        "content": {"text/event-stream": {"schema": {"$ref": PLACE.format(model="ChatCompletionChunk")}}},
    },
    **REFUSALS,
}
UNAUTHORIZED = {401: REFUSALS[401]}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": PLACE.format(model="ChatRequest")}}},
    }
}


class DescribedApi(FastAPI):
    """An application that describes those forms as well."""

    def openapi(self) -> dict[str, Any]:
        """The description; made on first use and kept by FastAPI."""
        schema = super().openapi()
        if "ChatRequest" not in schema["components"]["schemas"]:
            schema["components"]["schemas"].update(_forms())
        return schema


def _forms() -> dict[str, Any]:
    forms = enumerate((ChatRequest, ChatCompletionChunk))
    asked = [(number, "validation", TypeAdapter[Any](form)) for number, form in forms]
    _, schemas = TypeAdapter.json_schemas(asked, ref_template=PLACE)  # type: ignore[arg-type]
    return dict(schemas["$defs"])
