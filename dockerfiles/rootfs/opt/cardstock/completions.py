"""Chat completions for one backend: pictures fetched, a place in line, the answer whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fetch  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from chat import Chat, Piece  # type: ignore[import-not-found,unused-ignore]
from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from jobs import Backend, Gate, Job, token_limit  # type: ignore[import-not-found,unused-ignore]
from metrics import Metrics, RequestTimes  # type: ignore[import-not-found,unused-ignore]
from openai_answers import Reply, usage  # type: ignore[import-not-found,unused-ignore]
from openai_api import ChatRequest, to_chat  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]

log = logging.getLogger("cardstock")


class Completions:
    """Answers requests, and counts them in ``metrics``."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self.backend, self.settings = backend, settings
        self.gate = Gate(settings.max_queue)
        self.worker = ThreadPoolExecutor(1, "generate")
        self.metrics = Metrics(settings.models[0], self.gate.running, self.gate.waiting)

    async def answer(self, request: Request, asked: ChatRequest) -> Response:
        """The answer to ``asked``, which came in ``request``. Raises ApiError."""
        times = RequestTimes(self.metrics)
        limits = self.settings
        chat = to_chat(asked, limits.models, self.backend.defaults, self.backend.max_model_len, limits.max_images)
        self.gate.enter()
        try:
            job = await self._prepare(chat, times)
        except BaseException:
            self.gate.leave()
            raise
        job.start(self.gate, self.worker)
        reply = Reply(chat.model)
        if chat.stream:
            return StreamingResponse(self._stream(chat, job, reply), media_type="text/event-stream")
        return await self._whole(request, chat, job, reply)

    async def _prepare(self, chat: Chat, times: RequestTimes) -> Job:
        pictures = await asyncio.gather(
            *(asyncio.to_thread(fetch.load, image.url, self.settings.fetch) for image in chat.images())
        )
        prompt = await asyncio.to_thread(self.backend.prepare, chat, pictures)
        limit = token_limit(chat.sampling, prompt.length, self.backend.max_model_len)
        return Job(self.backend, prompt, chat.sampling, limit, times)

    async def _whole(self, request: Request, chat: Chat, job: Job, reply: Reply) -> Response:
        async def read() -> list[Piece]:
            return [piece async for piece in job.pieces()]

        reading = asyncio.create_task(read())
        leaving = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                self._note(job, reply, "client left")
                return Response(status_code=499)
            pieces = reading.result()
        except Exception:
            self._note(job, reply, "failed")
            raise
        finally:
            job.abandon()
            reading.cancel()
            leaving.cancel()
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


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def _event(content: Any) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
