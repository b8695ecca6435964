"""Answers being made: one at a time in a worker thread, others in a bounded line; a client may leave at any time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from assembler import Assembler  # type: ignore[import-not-found,unused-ignore]
from chat import Chat, Piece, Sampling, Token  # type: ignore[import-not-found,unused-ignore]
from metrics import RequestTimes  # type: ignore[import-not-found,unused-ignore]

log = logging.getLogger("cardstock")


class Backend(Protocol):
    """What the server asks of a model; see generate.Transformers."""

    max_model_len: int
    defaults: Sampling
    ends: frozenset[int]
    healthy: bool

    def decode(self, ids: list[int]) -> str: ...
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
        """How many wait."""
        return self.inside - self.running()

    def enter(self) -> None:
        """Count one in. Raises ApiError 503 when one runs and ``limit`` wait."""
        if self.inside > self.limit:
            raise ApiError(503, f"{self.limit} requests are waiting already: try again later", code="overloaded")
        self.inside += 1

    def leave(self, *_: object) -> None:
        """Count one out."""
        self.inside -= 1


class Job:
    """One answer being made: a worker thread pushes pieces, the request reads them, either may end it."""

    task: asyncio.Task[None]

    def __init__(self, backend: Backend, prompt: Any, sampling: Sampling, limit: int, times: RequestTimes) -> None:
        self.backend, self.prompt, self.sampling, self.limit = backend, prompt, sampling, limit
        self.assembler = Assembler(backend.decode, backend.ends, sampling, limit)
        self.times = times
        self.gone = threading.Event()
        self.begun = False
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()

    def _emit(self, token: Token) -> bool:
        self.times.token()
        piece = self.assembler.push(token)
        self._tell(piece)
        return piece.finish is not None or self.gone.is_set()

    def _tell(self, piece: Piece | Exception) -> None:
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def start(self, gate: Gate, worker: ThreadPoolExecutor) -> None:
        """Get in line. Whatever comes of it, the place in ``gate`` is given back at the end."""

        async def turn() -> None:
            async with gate.lock:
                self.begun = True
                self.times.begin()
                await self._loop.run_in_executor(worker, self.work)

        self.times.wait()
        self.task = asyncio.create_task(turn())
        self.task.add_done_callback(gate.leave)

    def abandon(self) -> None:
        """Nobody reads any more: leave the line, or stop at the next token. Does nothing to an answer that is done."""
        self.gone.set()
        if not self.begun:
            self.task.cancel()

    def work(self) -> None:
        """In the worker thread: generate unless the client has left; every failure reaches the reader."""
        if self.gone.is_set():
            return
        try:
            self.backend.generate(self.prompt, self.sampling, self.limit, self._emit)
            self._tell(RuntimeError("generation ended without a reason"))  # read only if no piece had one
        except Exception as error:
            if not isinstance(error, ApiError):
                log.exception("generation failed")
            self._tell(error)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Pieces up to the last. Raises what the worker raised."""
        while True:
            piece = await self._pieces.get()
            if isinstance(piece, Exception):
                raise piece
            yield piece
            if piece.finish:
                return


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
