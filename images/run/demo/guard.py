"""What comes to the page before gradio sees it: whose page sent it, how large it is, how long it takes.

The same rules, and the same modules, as those of the server on transformers (dockerfiles/rootfs/opt/cardstock): the
page's environment has that folder on its path. Plain ASGI, so that streams stay streams.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import hosts  # type: ignore[import-not-found,unused-ignore]
import json_shape  # type: ignore[import-not-found,unused-ignore]
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from images.run.demo.settings import MB, Settings, format_size

# A picture's address in an answer would tell a stranger what was asked: the browser fetches from here only.
POLICY = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    b"frame-ancestors 'self'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
MAX_ASKED = 4 * MB  # bytes of a request that is no upload: a conversation's texts, and the paths of its files
MAX_ELEMENTS, MAX_DEPTH = 100_000, 64
MAX_KEPT = 2000 * MB  # bytes of all uploads together, those that come in counted; gradio removes those of yesterday
MAX_FILES = 5000  # of all uploads together
UPLOAD = "/gradio_api/upload"


class Refusal(Exception):
    """A status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Guard:
    """Refuses, or hands on, and adds the content security policy to each answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        own = f"{settings.host} {platform.node()}"
        self._hosts = hosts.read_list(f"{own} {os.environ.get('CARDSTOCK_ALLOWED_HOSTS', '')}")
        self._origins = hosts.read_list(os.environ.get("CARDSTOCK_ALLOWED_ORIGINS", ""))
        self._coming = 0  # bytes of uploads that are on their way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        coming = 0
        try:
            self._check_sender(scope)
            if scope["type"] == "http":
                receive = await self._bounded(scope, receive)
                coming = _told(scope) if _is_upload(scope) else 0
        except Refusal as refusal:
            if scope["type"] == "http":
                await PlainTextResponse(refusal.sentence, refusal.status)(scope, receive, with_policy)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        self._coming += coming
        try:
            await self._app(scope, receive, with_policy)
        finally:
            self._coming -= coming

    def _check_sender(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        named = headers.getlist("host")
        host = named[0] if len(named) == 1 else ""
        if not hosts.host_allowed(host, self._hosts):
            raise Refusal(403, f"The name {host[:100]!r} is not this page's: add it to CARDSTOCK_ALLOWED_HOSTS.")
        for origin in headers.getlist("origin"):
            if not hosts.origin_allowed(origin, host, self._origins):
                raise Refusal(403, f"Pages of {origin[:100]!r} are not answered: CARDSTOCK_ALLOWED_ORIGINS.")
        # A browser says whose page asks. A stranger's may lead here; what it would load from here, it may not.
        stranger = headers.get("sec-fetch-site") in ("cross-site", "same-site") and "origin" not in headers
        if stranger and (scope.get("method") != "GET" or headers.get("sec-fetch-mode") != "navigate"):
            raise Refusal(403, "Pages of other sites are not answered: CARDSTOCK_ALLOWED_ORIGINS.")

    async def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The rest of the request, which is not larger than may be. Raises Refusal."""
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return receive
        told = _told(scope)
        if _is_upload(scope):
            self._check_room(told)
            return receive
        if told > MAX_ASKED:
            raise Refusal(413, f"The request is larger than {format_size(MAX_ASKED)}.")
        return await _looked_at(receive)

    def _check_room(self, told: int) -> None:
        """Whether an upload of so many bytes is taken. Raises Refusal."""
        limits, uploads = self._settings.limits, self._settings.uploads
        if told > limits.pictures * limits.upload_bytes + MB:
            raise Refusal(413, f"{limits.pictures} files of {format_size(limits.upload_bytes)} are taken at once.")
        kept = [*_sizes(uploads), *_sizes(uploads.parent / "tmp")]  # gradio gathers a file in the second
        if told + self._coming > MAX_KEPT - sum(kept):
            raise Refusal(413, f"The page holds {format_size(MAX_KEPT)} of uploads already: try again tomorrow.")
        if len(kept) > MAX_FILES:
            raise Refusal(413, f"The page holds {MAX_FILES} uploads already: try again tomorrow.")


def _is_upload(scope: Scope) -> bool:
    return scope["method"] in ("POST", "PUT", "PATCH") and scope["path"].rstrip("/") == UPLOAD


def _told(scope: Scope) -> int:
    """The bytes that a request says it has. Raises Refusal where it does not say."""
    headers = Headers(scope=scope)
    told = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (told.isascii() and told.isdecimal() and len(told) < 16):
        raise Refusal(411, "Say how long the request is: Content-Length.")
    return int(told)


async def _looked_at(receive: Receive) -> Receive:
    """The same body once more, all of it, if it has not too many values. Raises Refusal."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if why := json_shape.too_large(body, MAX_ELEMENTS, MAX_DEPTH):
        raise Refusal(400, f"Not taken: {why}.")
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        try:
            yield path.lstat().st_size
        except OSError:  # removed meanwhile
            continue
