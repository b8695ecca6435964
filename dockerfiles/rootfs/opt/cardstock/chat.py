"""What the server asks a model for, and what comes back: values without HTTP or JSON. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]


@dataclass(frozen=True)
class Image:
    """A picture a message asks for: a data: or http(s) URL."""

    url: str


@dataclass(frozen=True)
class Message:
    """One turn: its role ("system", "user" or "assistant"), and text and pictures in order."""

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
    """A request that was checked; ``usage``: a stream ends with token counts."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool
    usage: bool

    def images(self) -> list[Image]:
        """The pictures, in order."""
        return [part for message in self.messages for part in message.parts if isinstance(part, Image)]

    def letters(self) -> int:
        """Characters of all texts."""
        return sum(len(part) for message in self.messages for part in message.parts if isinstance(part, str))

    def without_urls(self) -> Chat:
        """The same with every picture's URL empty: what a data: URL holds need not be kept twice."""
        messages = (
            Message(turn.role, tuple(part if isinstance(part, str) else Image("") for part in turn.parts))
            for turn in self.messages
        )
        return replace(self, messages=tuple(messages))


@dataclass(frozen=True)
class Token:
    """A chosen token: id, log-probability before temperature, and the best alternatives with theirs."""

    id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """New text of an answer, the log-probabilities that came with it (openai_answers.TokenLogprob), and why it ended,
    if it did: "stop" or "length".
    """

    text: str = ""
    logprobs: tuple[dict[str, Any], ...] = ()
    finish: str | None = None


def token_limit(sampling: Sampling, prompt: int, longest: int) -> int:
    """How many tokens may be generated. Raises ApiError 400 when prompt and ``max_tokens`` do not fit ``longest``."""
    wanted = sampling.max_tokens or 1
    if prompt + wanted > longest:
        raise ApiError(
            400,
            f"This model's maximum context length is {longest} tokens: the prompt has {prompt}, {wanted} are asked for",
            param="messages",
            code="context_length_exceeded",
        )
    return sampling.max_tokens or longest - prompt
