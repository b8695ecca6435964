"""A model that is not one, behind the server on transformers: what the tests of the server share."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[2] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from app import create_app  # type: ignore[import-not-found,unused-ignore]
from chat import Sampling, Token  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]

END = 256


@dataclass(frozen=True)
class FakePrompt:
    length: int


@dataclass
class FakeBackend:
    """Says the bytes of ``answer``, one a token, then ends; ``hold`` stops it before each token until set."""

    answer: bytes = b"It is red."
    max_model_len: int = 100
    defaults: Any = field(default_factory=Sampling)
    ends: frozenset[int] = frozenset({END})
    healthy: bool = True
    fails: Exception | None = None
    hold: threading.Event | None = None
    said: list[int] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    opened: int = 0
    kept: int = 0
    running: int = 0
    most: int = 0

    def decode(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i != END).decode(errors="replace")

    def pixels(self, pictures: Sequence[bytes]) -> tuple[int, int]:
        return self.opened * len(pictures), self.kept * len(pictures)

    def prepare(self, chat: Any, pictures: Sequence[bytes]) -> FakePrompt:
        self.pictures += pictures
        if b"broken" in pictures:
            raise ApiError(400, "the picture cannot be read", param="messages", code="invalid_image")
        return FakePrompt(sum(len(part) for m in chat.messages for part in m.parts if isinstance(part, str)))

    def generate(self, prompt: Any, sampling: Any, limit: int, emit: Callable[[Any], bool]) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.fails:
                raise self.fails
            for token in [*self.answer, END]:
                if self.hold:
                    self.hold.wait(10)
                self.said.append(token)
                if emit(Token(token, -0.5, ((token, -0.5), (33, -2.0)))):
                    return
        finally:
            self.running -= 1


def client_of(engine: FakeBackend, **limits: Any) -> TestClient:
    return TestClient(create_app(engine, Settings(models=("tiny", "alias"), **limits)), "http://localhost")


def ask(text: Any = "What colour?", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}


def shown(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What colour?"}]


def post(client: TestClient, body: Any, **more: Any) -> Any:
    return client.post("/v1/chat/completions", json=body, **more)


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) if line != "[DONE]" else line for line in lines]
