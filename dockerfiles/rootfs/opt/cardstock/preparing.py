"""From a checked request to a prompt: its pictures fetched and opened, in threads, so that nobody waits for another.

Pictures are fetched in a pool of their own, a few of one request at a time. They are opened within a budget of pixels
that all requests share: a picture of 64 million pixels is a small file and half a gigabyte once it is opened.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import fetch  # type: ignore[import-not-found,unused-ignore]
from budget import Budget, Share  # type: ignore[import-not-found,unused-ignore]
from chat import Chat  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]

FETCHING = 16  # pictures of all requests that are fetched at a time
FETCHING_OF_ONE = 2  # of one request
THREADS = 2  # that make prompts
SHORT = 32_768  # letters; prompts that are shorter and have no pictures have a thread of their own


class _Backend(Protocol):
    def pixels(self, pictures: Sequence[bytes]) -> tuple[int, int]: ...
    def prepare(self, chat: Chat, pictures: Sequence[bytes]) -> Any: ...


class Preparing:
    """Makes prompts. ``pixels`` are those of all requests together; ``seconds`` may be waited for them."""

    def __init__(self, backend: _Backend, settings: Settings) -> None:
        self._backend, self._limits, self.seconds = backend, settings.fetch, settings.queue_seconds
        self._fetching = ThreadPoolExecutor(FETCHING, "fetch")
        self._threads = ThreadPoolExecutor(THREADS, "prepare")
        self._short = ThreadPoolExecutor(1, "prepare-short")
        self.pixels = Budget(settings.max_open_pixels, "pictures", "pixels")

    async def load(self, chat: Chat, gone: threading.Event, body: Share) -> list[bytes]:
        """The bytes of its pictures, in order; when it ends, no thread of it runs any more. Raises ApiError.

        ``body`` is the request's share of the memory for bodies: what is fetched is held in it.
        """
        turns, failed = asyncio.Semaphore(FETCHING_OF_ONE), threading.Event()

        async def load(url: str) -> bytes:
            async with turns:
                if failed.is_set() or gone.is_set():
                    return b""
                try:
                    return await self._load(url, body)
                except BaseException:
                    failed.set()
                    raise

        results = await asyncio.gather(*(load(image.url) for image in chat.images()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, bytes)]

    async def _load(self, url: str, body: Share) -> bytes:
        fetched = self._limits.mode != "off" and fetch.is_fetched(url)
        if fetched:
            await body.take(self._limits.bytes, self.seconds)
        pool = self._fetching if fetched else self._threads
        data: bytes = await asyncio.get_running_loop().run_in_executor(pool, fetch.load, url, self._limits)
        if fetched:
            body.keep(body.amount - self._limits.bytes + len(data))
        return data

    async def pixels_of(self, pictures: Sequence[bytes]) -> tuple[int, int]:
        """Pixels to hold while they are opened, and from then on to the answer's end. Raises ApiError."""
        if not pictures:
            return 0, 0
        loop = asyncio.get_running_loop()
        opened, kept = await loop.run_in_executor(self._threads, self._backend.pixels, pictures)
        return opened, kept

    async def prompt(self, chat: Chat, pictures: Sequence[bytes]) -> Any:
        """The prompt. Raises ApiError."""
        pool = self._threads if pictures or chat.letters() > SHORT else self._short
        return await asyncio.get_running_loop().run_in_executor(pool, self._backend.prepare, chat, pictures)
