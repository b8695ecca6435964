"""The middleware: each request on its way in through access, size and content, each answer on its way out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from budget import Budget, Share  # type: ignore[import-not-found,unused-ignore]
from guard_settings import GuardSettings, read  # type: ignore[import-not-found,unused-ignore]

from . import access, connections, content, parameters
from .answers import Answer, Send, refuse
from .media import Media, Opener, limit_pillow, open_header
from .receive import Body, Gone, Receive, drained

App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
# A body above this is counted, parsed and searched in a thread: the event loop answers others meanwhile.
IN_THE_LOOP = 64 * 1024


class Guard:
    """ASGI middleware. vLLM gives it the application alone; ``settings`` and ``opener`` are for tests."""

    def __init__(self, app: App, settings: GuardSettings | None = None, opener: Opener = open_header) -> None:
        self.app = app
        self.settings = settings or read(os.environ)
        self.bodies = Budget(self.settings.bodies, "bodies", "bytes")
        self.pixels = Budget(self.settings.pixels, "pictures", "pixels")
        self.media = Media(self.settings, opener)
        if settings is None:
            limited = connections.install(self.settings)
            limit_pillow(self.settings.image_pixels)
            asked = "asked for on every path but /health and /ping" if self.settings.keys else "none is set"
            print(f"guard: on; key: {asked}; headers limited in {', '.join(limited)}", file=sys.stderr)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":  # no model of these images speaks it
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        headers, body = scope["headers"], Body(self.bodies)
        try:
            access.check(headers, scope["method"], scope["path"], scope.get("root_path", ""), self.settings)
            await body.receive(receive, headers, self.settings)
            if body.raw:
                await self._look(scope, body, receive, send)
            else:
                await self._pass(scope, body, receive, send, Share(self.pixels))
        except ApiError as error:
            whole = body.whole or await drained(receive, headers, self.settings.body)
            await refuse(send, error, close=not whole)
        except Gone:
            pass
        finally:
            body.free()

    async def _look(self, scope: dict[str, Any], body: Body, receive: Receive, send: Send) -> None:
        _check_type(access.values(scope["headers"], b"content-type"))
        raw = body.raw
        if len(raw) > IN_THE_LOOP:
            parsed, found = await self._aside(self._read, raw)
        else:
            parsed, found = self._read(raw)
        pixels = 0
        if found.media:
            self.media.check_count(found.media)
            pixels = await self.media.bring(found.media)
            if any(not one.url.startswith("data:") for one in found.media):
                body.replace(await self._aside(_written, parsed))
        del parsed, found, raw
        share = Share(self.pixels)
        try:
            await share.take(pixels, self.settings.body_seconds)
            await self._pass(scope, body, receive, send, share)
        finally:
            share.keep(0)

    async def _aside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.media.workers, function, *arguments)

    def _read(self, raw: bytes) -> tuple[dict[str, Any], content.Content]:
        parsed = content.parse(raw, self.settings)
        found = content.look(parsed, raw, self.settings)
        parameters.check(parsed, found, self.settings)
        return parsed, found

    async def _pass(self, scope: dict[str, Any], body: Body, receive: Receive, send: Send, pixels: Share) -> None:
        """To the application, with the body that was looked at; pictures are decoded when its answer begins."""
        length = str(len(body.raw)).encode()
        kept = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
        inner = {**scope, "headers": [*kept, (b"content-length", length)]} if body.raw else scope
        given = False

        async def again() -> dict[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            raw, body.raw = body.raw, b""
            return {"type": "http.request", "body": raw, "more_body": False}

        await self.app(inner, again, Answer(send, lambda: pixels.keep(0)))


def _written(parsed: dict[str, Any]) -> bytes:
    return json.dumps(parsed).encode()


def _check_type(given: list[str]) -> None:
    """A page of another site may send a form or a text without asking first, and JSON not."""
    kind = given[0].partition(";")[0].strip().lower() if len(given) == 1 else ""
    if kind != "application/json":
        raise ApiError(415, "the Content-Type of a request must be application/json", code="unsupported_media_type")
