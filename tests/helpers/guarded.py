"""The guard before an application that is not vLLM: asked without a server, in ASGI's own messages."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOTFS = Path(__file__).parents[2] / "dockerfiles" / "rootfs" / "opt" / "cardstock"
for _folder in (ROOTFS / "middleware", ROOTFS):
    sys.path.insert(0, str(_folder))

import guard_settings as guard_settings  # type: ignore[import-not-found,unused-ignore]  # noqa: E402
from guard import Guard  # type: ignore[import-not-found,unused-ignore]  # noqa: E402
from guard.media import Picture  # type: ignore[import-not-found,unused-ignore]  # noqa: E402

CHAT = "/v1/chat/completions"
JSON = {"host": "127.0.0.1:8000", "content-type": "application/json"}


def open_png(data: bytes, formats: Sequence[str]) -> Any:
    """In Pillow's place: the size in a PNG's header."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or "PNG" not in formats:
        raise ValueError("no PNG at 0x7f0123456789")
    width, height = struct.unpack(">II", data[16:24])
    return Picture("PNG", width * height)


@dataclass
class Inner:
    """The application behind: what it was asked, and what it answers."""

    status: int = 200
    parts: Sequence[bytes] = (b'{"ok": true}',)
    kind: str = "application/json"
    scopes: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        message = await receive()
        self.scopes.append(scope)
        self.bodies.append(message.get("body", b""))
        head = [(b"content-type", self.kind.encode()), (b"content-length", b"%d" % sum(map(len, self.parts)))]
        await send({"type": "http.response.start", "status": self.status, "headers": head})
        for at, part in enumerate(self.parts):
            await send({"type": "http.response.body", "body": part, "more_body": at + 1 < len(self.parts)})
        self.after.append((await receive())["type"])

    @property
    def asked(self) -> Any:
        """The JSON of the one request that came through."""
        (body,) = self.bodies
        return json.loads(body)


@dataclass
class Got:
    """An answer; ``sent`` are the parts of its body as they came."""

    status: int
    headers: dict[str, str]
    sent: list[bytes]

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.sent)

    @property
    def error(self) -> str:
        """What a refusal says."""
        return str(json.loads(self.body)["error"]["message"])


def guard_of(inner: Inner, **environment: str) -> Any:
    """The guard as it is with these variables."""
    return Guard(inner, guard_settings.read(environment), open_png)


async def asking(
    guard: Any,
    body: bytes | Sequence[bytes] = b"",
    *,
    path: str = CHAT,
    method: str = "POST",
    headers: Mapping[str, str] = JSON,
    ends: bool = True,
) -> Got:
    """One request; ``ends`` False: the body never does."""
    parts = [body] if isinstance(body, bytes) else list(body)
    left = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if ends:
        left[-1]["more_body"] = False
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        if not ends:
            await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "scheme": "http", "headers": pairs}
    await guard(scope, receive, send)
    if not sent:
        return Got(0, {}, [])
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Got(sent[0]["status"], told, [message["body"] for message in sent[1:]])


def ask(guard: Any, body: Any = b"", **words: Any) -> Got:
    """The same, from beginning to end; a body that is no bytes is sent as JSON."""
    raw = body if isinstance(body, bytes | list) else json.dumps(body).encode()
    return asyncio.run(asking(guard, raw, **words))


def chat(content: Any = "hi", **fields: Any) -> dict[str, Any]:
    """An ordinary request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **fields}


def shown(*urls: Any) -> dict[str, Any]:
    """A request with pictures."""
    return chat([*({"type": "image_url", "image_url": url} for url in urls), {"type": "text", "text": "What?"}])
