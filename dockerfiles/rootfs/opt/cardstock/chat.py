"""What the server asks a model for, and what comes back: values without HTTP or JSON. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
