"""What this server answers, in the forms of OpenAI's chat API: whole answers, chunks of a stream, models, errors.

The forms are plain dicts with declared keys, so that a chunk costs no more than its JSON; /openapi.json describes them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired

from chat import Piece, Sampling  # type: ignore[import-not-found,unused-ignore]
from typing_extensions import TypedDict  # pydantic cannot take typing's own before Python 3.12


class LikelyToken(TypedDict):
    """A token's text, its log-probability before temperature, and its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(LikelyToken):
    """The token that was chosen, and those that were likeliest in its place."""

    top_logprobs: list[LikelyToken]


class Logprobs(TypedDict):
    """Log-probabilities, token by token."""

    content: list[TokenLogprob]


class Usage(TypedDict):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(TypedDict):
    """The model's turn."""

    role: Literal["assistant"]
    content: str


class Choice(TypedDict):
    """The answer, and why it ended: "stop" or "length"."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: str | None


class ChatCompletion(TypedDict):
    """An answer that is not streamed."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(TypedDict):
    """What is new in a chunk."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]


class ChunkChoice(TypedDict):
    """A piece of the answer; the last says why it ended."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: str | None


class ChatCompletionChunk(TypedDict):
    """One event of a stream; the one with ``usage`` has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[Usage]


class Model(TypedDict):
    """A name under which the model is served; ``max_model_len``: tokens of its longest sequence."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(TypedDict):
    """What /v1/models answers."""

    object: Literal["list"]
    data: list[Model]


class ErrorDetail(TypedDict):
    """What is wrong, the request's field at fault and a code, where there is one."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """Every answer but a good one."""

    error: ErrorDetail


@dataclass(frozen=True)
class Reply:
    """What the answers to one request share."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, pieces: Sequence[Piece], sampling: Sampling, usage: Usage) -> ChatCompletion:
        """The body of an answer that is not streamed."""
        choice: Choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(piece.text for piece in pieces)},
            "logprobs": _logprobs(pieces) if sampling.logprobs else None,
            "finish_reason": pieces[-1].finish,
        }
        return {
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": [choice], "usage": usage,
        }  # fmt: skip

    def chunk(self, delta: Delta, piece: Piece | None = None, logprobs: bool = False) -> ChatCompletionChunk:
        """One chunk of a stream."""
        choice: ChunkChoice = {
            "index": 0,
            "delta": delta,
            "logprobs": _logprobs([piece]) if piece and logprobs else None,
            "finish_reason": piece.finish if piece else None,
        }
        return self._chunk([choice])

    def usage_chunk(self, usage: Usage) -> ChatCompletionChunk:
        """The last chunk of a stream that was asked for usage: no choices."""
        return {**self._chunk([]), "usage": usage}

    def _chunk(self, choices: list[ChunkChoice]) -> ChatCompletionChunk:
        return {
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices,
        }  # fmt: skip


def _logprobs(pieces: Sequence[Piece]) -> Logprobs:
    return {"content": [entry for piece in pieces for entry in piece.logprobs]}


def usage(prompt: int, completion: int) -> Usage:
    """Numbers of tokens in the API's form."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def model_list(names: Sequence[str], longest: int) -> ModelList:
    """What /v1/models answers for one model of these names, whose longest sequence has ``longest`` tokens."""
    data: list[Any] = [
        {"id": name, "object": "model", "created": 0, "owned_by": "cardstock", "max_model_len": longest}
        for name in names
    ]
    return {"object": "list", "data": data}
