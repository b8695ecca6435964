"""Answers being made: one at a time in a worker thread, others in a bounded line; a client may leave at any time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from assembler import Assembler  # type: ignore[import-not-found,unused-ignore]
from budget import Share  # type: ignore[import-not-found,unused-ignore]
from chat import Chat, Piece, Sampling, Token, token_limit  # type: ignore[import-not-found,unused-ignore]
from metrics import RequestTimes  # type: ignore[import-not-found,unused-ignore]
from preparing import Preparing  # type: ignore[import-not-found,unused-ignore]

log = logging.getLogger("cardstock")
MOST_UNREAD = 4096  # pieces of an answer that its client has not taken yet: one that reads so little has left


class Backend(Protocol):
    """What the server asks of a model; see generate.Transformers."""

    max_model_len: int
    defaults: Sampling
    ends: frozenset[int]
    healthy: bool

    def decode(self, ids: list[int]) -> str: ...
    def pixels(self, pictures: Sequence[bytes]) -> tuple[int, int]: ...
    def prepare(self, chat: Chat, pictures: Sequence[bytes]) -> Any: ...
    def generate(self, prompt: Any, sampling: Sampling, limit: int, emit: Callable[[Token], bool]) -> None: ...


class Gate:
    """One at a time, first come first served, a bounded number waiting."""

    def __init__(self, limit: int) -> None:
        self.limit, self.inside = limit, 0
        self.lock = asyncio.Lock()

    def running(self) -> int:
        """How many are being answered: 0 or 1."""
        return int(self.lock.locked())

    def waiting(self) -> int:
        """How many wait, or have their pictures fetched and opened."""
        return self.inside - self.running()

    def enter(self) -> None:
        """Count one in. Raises ApiError 503 when one runs and ``limit`` wait."""
        if self.inside > self.limit:
            raise ApiError(503, f"{self.limit} requests are waiting already: try again later", code="overloaded")
        self.inside += 1

    def leave(self) -> None:
        """Count one out."""
        self.inside -= 1


class Job:
    """One answer being made: threads make the prompt and push pieces, the request reads them, either may end it.

    ``body`` is the request's share of the memory for bodies. It is given back as soon as the prompt is made; the place
    in the line and the pixels of its pictures when all of its work has ended, that of threads too.
    """

    prompt: Any
    assembler: Assembler

    def __init__(self, backend: Backend, chat: Chat, body: Share, times: RequestTimes) -> None:
        self.backend, self.sampling, self.times = backend, chat.sampling, times
        self.gone = threading.Event()
        self._chat = chat
        self._body = body
        self._interruptible = False
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        self._ready: asyncio.Future[None] = self._loop.create_future()

    def start(self, gate: Gate, preparing: Preparing, worker: ThreadPoolExecutor) -> None:
        """Get in line. From here on all that is held is given back at the end, in any case. Raises ApiError 503."""
        gate.enter()
        self.task = asyncio.create_task(self._run(gate, preparing, worker))

    async def _run(self, gate: Gate, preparing: Preparing, worker: ThreadPoolExecutor) -> None:
        pixels = Share(preparing.pixels)
        try:
            pictures = await preparing.load(self._chat, self.gone, self._body)
            self._chat = self._chat.without_urls()
            opened, kept = await preparing.pixels_of(pictures)
            with self._waiting():
                await pixels.take(opened, preparing.seconds)
            self.prompt = await preparing.prompt(self._chat, pictures)
            pictures.clear()
            pixels.keep(kept)
            self._body.keep(0)
            limit = token_limit(self.sampling, self.prompt.length, self.backend.max_model_len)
            self.assembler = Assembler(self.backend.decode, self.backend.ends, self.sampling, limit)
            self._ready.set_result(None)
            self.times.wait()
            with self._waiting():
                await gate.lock.acquire()
            try:
                self.times.begin()
                await self._loop.run_in_executor(worker, self._work, limit)
            finally:
                gate.lock.release()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error if isinstance(error, Exception) else ApiError(503, "the request ended"))
                self._ready.exception()  # whoever asked may have left: nobody need hear of it
            if not isinstance(error, Exception):
                raise
        finally:
            self._body.keep(0)
            pixels.keep(0)
            gate.leave()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Around what a client that leaves need not wait for."""
        if self.gone.is_set():
            raise asyncio.CancelledError
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    async def ready(self) -> None:
        """Wait until the prompt is made. Raises what went wrong."""
        await asyncio.shield(self._ready)

    def abandon(self) -> None:
        """Nobody reads any more: leave the line, or stop at the next token. Does nothing to an answer that is done."""
        self.gone.set()
        if self._interruptible:
            self.task.cancel()

    def _work(self, limit: int) -> None:
        """In the worker thread: generate unless the client has left; every failure reaches the reader."""
        if self.gone.is_set():
            return
        try:
            self.backend.generate(self.prompt, self.sampling, limit, self._emit)
            self._tell(RuntimeError("generation ended without a reason"))  # read only if no piece had one
        except Exception as error:
            if not isinstance(error, ApiError):
                log.exception("generation failed")
            self._tell(error)

    def _emit(self, token: Token) -> bool:
        self.times.token()
        piece = self.assembler.push(token)
        self._tell(piece)
        return piece.finish is not None or self.gone.is_set() or self._pieces.qsize() > MOST_UNREAD

    def _tell(self, piece: Piece | Exception) -> None:
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Pieces up to the last. Raises what the worker raised."""
        while True:
            piece = await self._pieces.get()
            if isinstance(piece, Exception):
                raise piece
            yield piece
            if piece.finish:
                return
