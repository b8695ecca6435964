"""The smallest OpenAI-compatible server for Qwen2.5-VL on transformers: FastAPI in front of one model.

    python server.py --model DIR_OR_REPO [--served-model-name NAME]… [--host 0.0.0.0] [--port 8000] [--dtype auto]
                     [--max-model-len N] [--attention sdpa|eager] [--pipeline-parallel-size N] [--api-key KEY]

GET /health, GET /v1/models, GET /metrics (for Prometheus), POST /v1/chat/completions (text, pictures, streaming). One
answer is generated at a time, others wait in a bounded queue, and a client that leaves frees its place. Environment:

    CARDSTOCK_PORT             port when --port is not given (8000)
    CARDSTOCK_API_KEY          like --api-key, unseen in the process list
    CARDSTOCK_MIN_PIXELS, CARDSTOCK_MAX_PIXELS   size a picture is brought to (the checkpoint's own)
    CARDSTOCK_MAX_IMAGES       pictures in one request (8)
    CARDSTOCK_MAX_IMAGE_MB     of one picture as sent (20)
    CARDSTOCK_MAX_BODY_MB      of one request (64)
    CARDSTOCK_MAX_QUEUE        requests that may wait (16); beyond, 503 with Retry-After
    CARDSTOCK_FETCH            public | any | off: which http(s) pictures are fetched (public: no private address)
    CARDSTOCK_FETCH_TIMEOUT    seconds for one picture (10)
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import counters  # type: ignore[import-not-found,unused-ignore]
import fetch  # type: ignore[import-not-found,unused-ignore]
import wire  # type: ignore[import-not-found,unused-ignore]
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from wire import ApiError, Chat, Piece, Sampling, Token

log = logging.getLogger("cardstock")
MEGABYTE = 2**20


class Engine(Protocol):
    """What the server asks of a model; see generate.Transformers."""

    max_model_len: int
    defaults: Sampling
    ends: frozenset[int]
    healthy: bool

    def decode(self, ids: list[int]) -> str: ...
    def prepare(self, chat: Chat, pictures: Sequence[bytes]) -> Any: ...
    def generate(self, prompt: Any, sampling: Sampling, limit: int, emit: Callable[[Token], bool]) -> None: ...


@dataclass(frozen=True)
class Settings:
    """What is served and within which limits."""

    models: tuple[str, ...]
    api_key: str | None = None
    max_images: int = 8
    max_body: int = 64 * MEGABYTE
    max_queue: int = 16
    fetch: fetch.Limits = field(default_factory=fetch.Limits)


class Gate:
    """One at a time, first come first served, a bounded number waiting."""

    def __init__(self, limit: int) -> None:
        self.limit, self.inside = limit, 0
        self.lock = asyncio.Lock()

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

    def __init__(self, engine: Engine, prompt: Any, sampling: Sampling, limit: int) -> None:
        self.engine, self.prompt, self.sampling, self.limit = engine, prompt, sampling, limit
        self.assembler = wire.Assembler(engine.decode, engine.ends, sampling, limit)
        self.gone = threading.Event()
        self.started = time.monotonic()
        self.begun = False
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()

    def _emit(self, token: Token) -> bool:
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
                await self._loop.run_in_executor(worker, self.work)

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
            self.engine.generate(self.prompt, self.sampling, self.limit, self._emit)
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


def error_response(error: ApiError) -> JSONResponse:
    """The error in OpenAI's form."""
    headers = {"Retry-After": "1"} if error.status == 503 else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def read_body(request: Request, limit: int) -> Any:
    """The JSON body. Raises ApiError 413 beyond ``limit`` bytes, 400 for no JSON."""
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > limit:
            raise ApiError(413, f"the request is larger than {limit} bytes", code="request_too_large")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "the body is not JSON") from error


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


class Server:
    """The endpoints' work, for one engine."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.gate = Gate(settings.max_queue)
        self.worker = ThreadPoolExecutor(1, "generate")
        self.counters = counters.Counters()

    def metrics(self) -> str:
        """The body of GET /metrics."""
        running = int(self.gate.lock.locked())
        return str(self.counters.text(running, self.gate.inside - running))

    def authorise(self, request: Request) -> None:
        """Raises ApiError 401 unless the key is right, where one is set."""
        key = self.settings.api_key
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key and not hmac.compare_digest(given.encode(), key.encode()):
            raise ApiError(401, "Unauthorized", code="invalid_api_key")

    def models(self) -> dict[str, Any]:
        """The body of GET /v1/models."""
        longest = self.engine.max_model_len
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "cardstock", "max_model_len": longest}
            for name in self.settings.models
        ]
        return {"object": "list", "data": data}

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        self.authorise(request)
        body = await read_body(request, self.settings.max_body)
        longest = self.engine.max_model_len
        chat = wire.parse_chat(body, self.settings.models, self.engine.defaults, longest, self.settings.max_images)
        self.gate.enter()
        try:
            job = await self._prepare(chat)
        except BaseException:
            self.gate.leave()
            raise
        job.start(self.gate, self.worker)
        reply = wire.Reply(chat.model)
        if chat.stream:
            return StreamingResponse(self._stream(chat, job, reply), media_type="text/event-stream")
        return await self._whole(request, chat, job, reply)

    async def _prepare(self, chat: Chat) -> Job:
        pictures = await asyncio.gather(
            *(asyncio.to_thread(fetch.load, image.url, self.settings.fetch) for image in chat.images())
        )
        prompt = await asyncio.to_thread(self.engine.prepare, chat, pictures)
        limit = token_limit(chat.sampling, prompt.length, self.engine.max_model_len)
        return Job(self.engine, prompt, chat.sampling, limit)

    async def _whole(self, request: Request, chat: Chat, job: Job, reply: wire.Reply) -> Response:
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
        return JSONResponse(reply.whole(pieces, chat.sampling, wire.usage(job.prompt.length, job.assembler.count)))

    async def _stream(self, chat: Chat, job: Job, reply: wire.Reply) -> AsyncIterator[str]:
        finish: str | None = "client left"
        try:
            yield _event(reply.chunk({"role": "assistant", "content": ""}))
            async for piece in job.pieces():
                if piece.text or piece.logprobs or piece.finish:
                    delta = {"content": piece.text} if piece.text or piece.logprobs else {}
                    yield _event(reply.chunk(delta, piece, chat.sampling.logprobs))
                finish = piece.finish or finish
            if chat.usage:
                yield _event(reply.usage_chunk(wire.usage(job.prompt.length, job.assembler.count)))
            yield "data: [DONE]\n\n"
        except Exception as error:
            finish = "failed"
            known = error if isinstance(error, ApiError) else ApiError(500, "generation failed: see the server's log")
            yield _event(known.body())
            yield "data: [DONE]\n\n"
        finally:
            job.abandon()
            self._note(job, reply, finish)

    def _note(self, job: Job, reply: wire.Reply, finish: str | None) -> None:
        seconds = time.monotonic() - job.started
        count = job.assembler.count
        self.counters.end(finish or "unknown", job.prompt.length, count, seconds)
        log.info("%s: prompt %d, answer %d tokens, %s, %.1f s", reply.id, job.prompt.length, count, finish, seconds)


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """The application. `engine` is loaded already: a server that answers is a server that is ready."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    server = Server(engine, settings)

    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=200 if engine.healthy else 503)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        server.authorise(request)
        return JSONResponse(server.models())

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.metrics(), media_type=counters.TYPE)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await server.chat(request)

    @app.exception_handler(ClientDisconnect)
    async def client_left(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        server.counters.refused[error.status] += 1
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return error_response(ApiError(error.status_code, str(error.detail)))

    @app.exception_handler(Exception)
    async def any_error(_: Request, error: Exception) -> Response:
        return error_response(ApiError(500, f"the server failed ({type(error).__name__}): see its log"))

    return app


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, in the spirit of vLLM's."""
    parser = argparse.ArgumentParser(description="Serve Qwen2.5-VL on transformers over the OpenAI API.")
    parser.add_argument("--model", required=True, help="a folder, or a repository on the Hub")
    parser.add_argument("--served-model-name", nargs="+", default=None)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104  (a container's own network)
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--dtype", default="auto",
                        choices=["auto", "half", "float16", "bfloat16", "float", "float32"])  # fmt: skip
    parser.add_argument("--max-model-len", type=int, default=None)
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1; default: the first card, else the CPU")
    parser.add_argument("--pipeline-parallel-size", type=int, default=1, help="cards that share the layers")
    parser.add_argument(
        "--dequantise", action="store_true", help="unpack AWQ weights once: four times the memory, faster"
    )
    parser.add_argument("--api-key", default=None)
    return parser.parse_args(arguments)


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isdigit() or int(value) < 1:
        raise SystemExit(f"{name} must be a whole number above 0, not {value!r}")
    return int(value)


def _pixels(environment: Mapping[str, str], name: str) -> int | None:
    return _positive(environment, name, 1) if environment.get(name) else None


def settings(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Limits from the environment. Raises SystemExit for a value that makes no sense."""
    mode = environment.get("CARDSTOCK_FETCH") or "public"
    if mode not in ("public", "any", "off"):
        raise SystemExit(f"CARDSTOCK_FETCH must be public, any or off, not {mode!r}")
    limits = fetch.Limits(
        mode,
        _positive(environment, "CARDSTOCK_MAX_IMAGE_MB", 20) * MEGABYTE,
        _positive(environment, "CARDSTOCK_FETCH_TIMEOUT", 10),
    )
    return Settings(
        models=tuple(args.served_model_name or [args.model]),
        api_key=args.api_key or environment.get("CARDSTOCK_API_KEY") or None,
        max_images=_positive(environment, "CARDSTOCK_MAX_IMAGES", 8),
        max_body=_positive(environment, "CARDSTOCK_MAX_BODY_MB", 64) * MEGABYTE,
        max_queue=_positive(environment, "CARDSTOCK_MAX_QUEUE", 16),
        fetch=limits,
    )


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download  # type: ignore[import-not-found,unused-ignore]

    log.info("fetching %s", model)
    return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))


def _devices(args: argparse.Namespace) -> list[str]:
    if args.pipeline_parallel_size > 1:
        return [f"cuda:{index}" for index in range(args.pipeline_parallel_size)]
    return [args.device] if args.device else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model, then serve until told to end."""
    args = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    what = settings(args, os.environ)
    port = args.port or _positive(os.environ, "CARDSTOCK_PORT", 8000)
    import uvicorn
    from awq_loader import LoadError  # type: ignore[import-not-found,unused-ignore]
    from generate import Transformers  # type: ignore[import-not-found,unused-ignore]

    start = time.monotonic()
    try:
        engine = Transformers(
            _folder(args.model), dtype=args.dtype, attention=args.attention, devices=_devices(args),
            max_model_len=args.max_model_len, dequantised=args.dequantise,
            min_pixels=_pixels(os.environ, "CARDSTOCK_MIN_PIXELS"),
            max_pixels=_pixels(os.environ, "CARDSTOCK_MAX_PIXELS"),
        )  # fmt: skip
    except LoadError as error:
        log.error("%s", error)
        return 1
    log.info("%s on %s, %s, %s attention, %d tokens, loaded in %.1f s", args.model, engine.device, engine.dtype,
             args.attention, engine.max_model_len, time.monotonic() - start)  # fmt: skip
    uvicorn.run(create_app(engine, what), host=args.host, port=port, log_level="warning", timeout_graceful_shutdown=5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
