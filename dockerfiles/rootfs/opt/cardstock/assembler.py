"""Tokens put together to text. Standard library only, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chat import Piece, Sampling, Token  # type: ignore[import-not-found,unused-ignore]
from stops import StopTexts  # type: ignore[import-not-found,unused-ignore]

HELD_TOKENS = 8  # a character of UTF-8 has at most 4 bytes: after 8 tokens a broken tail is broken for good


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
    _stops: StopTexts = field(init=False)

    def __post_init__(self) -> None:
        self._stops = StopTexts(self.sampling.stop)

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
        out, ended = self._stops.push(text)
        if ended:
            return Piece(out, logprobs, "stop")
        if self.count >= self.limit:
            return Piece(out + self._flush(), logprobs, "length")
        return Piece(out, logprobs)

    def _flush(self) -> str:
        out: str = self._stops.rest() + (self.decode(self._ids) if self._ids else "")
        self._ids.clear()
        return out

    def _logprob(self, token: Token) -> dict[str, Any]:
        top = [self._entry(*pair) for pair in token.top[: self.sampling.top_logprobs]]
        return {**self._entry(token.id, token.logprob), "top_logprobs": top}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.decode([token])
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}
