"""Chat completions for one backend: a body read, a place in line, the answer whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from chat import Chat, Piece  # type: ignore[import-not-found,unused-ignore]
from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from jobs import Backend, Gate, Job  # type: ignore[import-not-found,unused-ignore]
from metrics import Metrics, RequestTimes  # type: ignore[import-not-found,unused-ignore]
from openai_answers import Reply, usage  # type: ignore[import-not-found,unused-ignore]
from openai_api import ChatRequest, to_chat  # type: ignore[import-not-found,unused-ignore]
from preparing import Preparing  # type: ignore[import-not-found,unused-ignore]
from request_body import Bodies  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]

log = logging.getLogger("cardstock")


class Completions:
    """Answers requests, and counts them in ``metrics``."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self.backend, self.settings = backend, settings
        self.gate = Gate(settings.max_queue)
        self.worker = ThreadPoolExecutor(1, "generate")
        self.preparing = Preparing(backend, settings)
        self.bodies = Bodies(settings)
        self.metrics = Metrics(settings.models[0], self.gate.running, self.gate.waiting)

    async def answer(self, request: Request) -> Response:
        """The answer to a request whose body is still to be read. Raises ApiError."""
        times = RequestTimes(self.metrics)
        body = self.bodies.share()
        try:
            chat = self._chat(await self.bodies.read(request, body))
            job = Job(self.backend, chat, body, times)
            job.start(self.gate, self.preparing, self.worker)
        except BaseException:
            body.keep(0)
            raise
        chat = chat.without_urls()
        reply = Reply(chat.model)
        try:
            if not await _unless_left(request, job.ready()):
                job.abandon()
                return Response(status_code=499)
        except BaseException:
            job.abandon()
            raise
        if chat.stream:
            return StreamingResponse(self._stream(chat, job, reply), media_type="text/event-stream")
        return await self._whole(request, chat, job, reply)

    def _chat(self, asked: ChatRequest) -> Chat:
        limits, backend = self.settings, self.backend
        return to_chat(
            asked, limits.models, backend.defaults, backend.max_model_len, limits.max_images, limits.max_text
        )

    async def _whole(self, request: Request, chat: Chat, job: Job, reply: Reply) -> Response:
        pieces: list[Piece] = []

        async def read() -> None:
            async for piece in job.pieces():
                pieces.append(piece)

        try:
            if not await _unless_left(request, read()):
                self._note(job, reply, "client left")
                return Response(status_code=499)
        except Exception:
            self._note(job, reply, "failed")
            raise
        finally:
            job.abandon()
        self._note(job, reply, pieces[-1].finish)
        return JSONResponse(reply.whole(pieces, chat.sampling, usage(job.prompt.length, job.assembler.count)))

    async def _stream(self, chat: Chat, job: Job, reply: Reply) -> AsyncIterator[str]:
        finish: str | None = "client left"
        try:
            yield _event(reply.chunk({"role": "assistant", "content": ""}))
            async for piece in job.pieces():
                if piece.text or piece.logprobs or piece.finish:
                    delta = {"content": piece.text} if piece.text or piece.logprobs else {}
                    yield _event(reply.chunk(delta, piece, chat.sampling.logprobs))
                finish = piece.finish or finish
            if chat.usage:
                yield _event(reply.usage_chunk(usage(job.prompt.length, job.assembler.count)))
            yield "data: [DONE]\n\n"
        except Exception as error:
            finish = "failed"
            known = error if isinstance(error, ApiError) else ApiError(500, "generation failed: see the server's log")
            yield _event(known.body())
            yield "data: [DONE]\n\n"
        finally:
            job.abandon()
            self._note(job, reply, finish)

    def _note(self, job: Job, reply: Reply, finish: str | None) -> None:
        count = job.assembler.count
        seconds = job.times.end(finish or "unknown", job.prompt.length, count)
        log.info("%s: prompt %d, answer %d tokens, %s, %.1f s", reply.id, job.prompt.length, count, finish, seconds)


async def _unless_left(request: Request, work: Coroutine[Any, Any, None]) -> bool:
    """Whether ``work`` ended before the client left; if not, it is cancelled. Raises what it raises."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def _event(content: Any) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
