"""The OpenAI chat API as values: requests parsed and refused, tokens put together, answers and chunks written.

Standard library only, no I/O. Fields of the API that this server does not know are ignored, as OpenAI's clients
expect; those that would change the answer and are not supported (tools, n above 1, JSON schemas) are refused.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "user", "assistant")
MAX_STOPS, MAX_TOP_LOGPROBS = 4, 20
HELD_TOKENS = 8  # a character of UTF-8 has at most 4 bytes: after 8 tokens a broken tail is broken for good


class ApiError(Exception):
    """An answer in OpenAI's error form: HTTP status, message, the parameter at fault and a code."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Image:
    """A picture a message asks for: a data: or http(s) URL."""

    url: str


@dataclass(frozen=True)
class Message:
    """One turn: its role, and text and pictures in order."""

    role: str
    parts: tuple[str | Image, ...]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. ``temperature`` 0 is greedy; ``top_k`` 0 is all; ``max_tokens`` None is what fits."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True)
class Chat:
    """A parsed request."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool
    usage: bool

    def images(self) -> list[Image]:
        """The pictures, in order."""
        return [part for message in self.messages for part in message.parts if isinstance(part, Image)]


def _number(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ApiError(400, f"{name} must be a number from {low:g} to {high:g}", param=name)
    return float(value)


def _whole(body: Mapping[str, Any], name: str, default: int | None, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ApiError(400, f"{name} must be a whole number from {low} to {high}", param=name)
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(400, f"{name} must be true or false", param=name)
    return bool(value)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise ApiError(400, f"stop must be a text, or a list of at most {MAX_STOPS}", param="stop")
    return tuple(stops)


def _part(part: Any, where: str) -> str | Image:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str) and url:
            return Image(url)
    raise ApiError(400, f"{where}: a part must be {{type: text, text}} or {{type: image_url, image_url: {{url}}}}",
                   param="messages")  # fmt: skip


def _message(message: Any, index: int) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise ApiError(400, f"{where} must be an object", param="messages")
    role = "system" if message.get("role") == "developer" else message.get("role")
    if role not in ROLES:
        raise ApiError(400, f"{where}.role must be one of {', '.join(ROLES)}", param="messages")
    content = message.get("content")
    if isinstance(content, str):
        return Message(role, (content,))
    if not isinstance(content, list) or not content:
        raise ApiError(400, f"{where}.content must be a text or a list of parts", param="messages")
    parts = tuple(_part(part, f"{where}.content[{at}]") for at, part in enumerate(content))
    if role != "user" and any(isinstance(part, Image) for part in parts):
        raise ApiError(400, f"{where}: only a user's message may hold pictures", param="messages")
    return Message(role, parts)


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    if body.get("n") not in (None, 1):
        raise ApiError(400, "n above 1 is not supported", param="n")
    for name in ("tools", "functions", "audio", "logit_bias"):
        if body.get(name):
            raise ApiError(400, f"{name} is not supported", param=name)
    form = body.get("response_format")
    if form is not None and (not isinstance(form, dict) or form.get("type") != "text"):
        raise ApiError(400, "response_format other than text is not supported", param="response_format")


def parse_sampling(body: Mapping[str, Any], defaults: Sampling, limit: int) -> Sampling:
    """The sampling fields of a request; ``limit`` is the model's longest sequence. Raises ApiError 400."""
    name = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    logprobs = _flag(body, "logprobs")
    top = _whole(body, "top_logprobs", 0, 0, MAX_TOP_LOGPROBS) or 0
    if top and not logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    return Sampling(
        temperature=_number(body, "temperature", defaults.temperature, 0, 2),
        top_p=_number(body, "top_p", defaults.top_p, 0, 1),
        top_k=_whole(body, "top_k", defaults.top_k, 0, 2**31) or 0,
        repetition_penalty=_number(body, "repetition_penalty", defaults.repetition_penalty, 0.01, 10),
        max_tokens=_whole(body, name, defaults.max_tokens, 1, limit),
        stop=_stops(body.get("stop")),
        seed=_whole(body, "seed", None, -(2**63), 2**63 - 1),
        logprobs=logprobs,
        top_logprobs=top,
    )


def parse_chat(body: Any, models: Sequence[str], defaults: Sampling, limit: int, max_images: int) -> Chat:
    """A request body as a `Chat`. Raises ApiError: 400 for a bad field, 404 for a model not served here."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    model = body.get("model")
    if not isinstance(model, str) or model not in models:
        raise ApiError(404, f"The model {model!r} does not exist.", param="model", code="model_not_found")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list with at least one message", param="messages")
    _refuse_unsupported(body)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, "stream_options must be an object", param="stream_options")
    chat = Chat(
        model,
        tuple(_message(message, index) for index, message in enumerate(messages)),
        parse_sampling(body, defaults, limit),
        stream=_flag(body, "stream"),
        usage=_flag(options, "include_usage"),
    )
    if len(chat.images()) > max_images:
        raise ApiError(400, f"{len(chat.images())} pictures, at most {max_images} are taken", param="messages")
    return chat


@dataclass(frozen=True)
class Token:
    """A chosen token: id, log-probability before temperature, and the best alternatives with theirs."""

    id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """New text of an answer, the log-probabilities that came with it, and why it ended, if it did."""

    text: str = ""
    logprobs: tuple[dict[str, Any], ...] = ()
    finish: str | None = None


@dataclass
class Assembler:
    """Tokens in, text out: characters cut between tokens wait for the rest, and stop texts never show.

    ``decode`` turns ids into text (byte-level: the text of a sequence is that of its parts); ``ends`` are the ids
    that end an answer.
    """

    decode: Callable[[list[int]], str]
    ends: frozenset[int]
    sampling: Sampling
    limit: int
    count: int = 0
    _ids: list[int] = field(default_factory=list)
    _held: str = ""

    def push(self, token: Token) -> Piece:
        """Take one token. A piece with ``finish`` set is the last: "stop" or "length"."""
        self.count += 1
        logprobs = (self._logprob(token),) if self.sampling.logprobs else ()
        if token.id in self.ends:
            return Piece(self._flush(), logprobs, "stop")
        self._ids.append(token.id)
        text = self.decode(self._ids)
        if text.endswith("\ufffd") and len(self._ids) < HELD_TOKENS:
            text = ""
        else:
            self._ids.clear()
        self._held += text
        cut = min((at for stop in self.sampling.stop if (at := self._held.find(stop)) >= 0), default=-1)
        if cut >= 0:
            return Piece(self._held[:cut], logprobs, "stop")
        if self.count >= self.limit:
            return Piece(self._flush(), logprobs, "length")
        return Piece(self._release(), logprobs)

    def _release(self) -> str:
        """What is held, but for an end that may be the beginning of a stop text."""
        keep = max((n for stop in self.sampling.stop for n in range(1, len(stop)) if self._held.endswith(stop[:n])),
                   default=0)  # fmt: skip
        out = self._held[: len(self._held) - keep]
        self._held = self._held[len(out) :]
        return out

    def _flush(self) -> str:
        out = self._held + (self.decode(self._ids) if self._ids else "")
        self._held = ""
        self._ids.clear()
        return out

    def _logprob(self, token: Token) -> dict[str, Any]:
        top = [self._entry(*pair) for pair in token.top[: self.sampling.top_logprobs]]
        return {**self._entry(token.id, token.logprob), "top_logprobs": top}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.decode([token])
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}


@dataclass(frozen=True)
class Reply:
    """What the answers to one request share."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def whole(self, pieces: Sequence[Piece], sampling: Sampling, usage: dict[str, int]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(piece.text for piece in pieces)},
            "logprobs": _logprobs(pieces) if sampling.logprobs else None,
            "finish_reason": pieces[-1].finish,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage}

    def chunk(self, delta: dict[str, Any], piece: Piece | None = None, logprobs: bool = False) -> dict[str, Any]:
        """One chunk of a stream."""
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": _logprobs([piece]) if piece and logprobs else None,
            "finish_reason": piece.finish if piece else None,
        }
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last chunk of a stream that was asked for usage: no choices."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage}


def _logprobs(pieces: Sequence[Piece]) -> dict[str, Any]:
    return {"content": [entry for piece in pieces for entry in piece.logprobs]}


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts in OpenAI's form."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
