"""The smallest OpenAI-compatible server for Qwen2.5-VL on transformers: FastAPI in front of one model.

    python server.py --model DIR_OR_REPO [--served-model-name NAME]… [--host 0.0.0.0] [--port 8000] [--dtype auto]
                     [--max-model-len N] [--attention sdpa|eager] [--pipeline-parallel-size N] [--api-key KEY]

GET /health, GET /v1/models, GET /metrics (for Prometheus), POST /v1/chat/completions (text, pictures, streaming);
GET /openapi.json describes them, and GET /docs shows that as a page. One answer is generated at a time, others wait in
a bounded queue, and a client that leaves frees its place. Environment:

    CARDSTOCK_PORT             port when --port is not given (8000)
    CARDSTOCK_API_KEY          like --api-key, unseen in the process list; asked for everywhere but on /health
    CARDSTOCK_ALLOWED_HOSTS    names that requests may be sent to, besides addresses and localhost; * is any
    CARDSTOCK_ALLOWED_ORIGINS  pages that may send requests (https://app.example.org), besides the server's own
    CARDSTOCK_MIN_PIXELS, CARDSTOCK_MAX_PIXELS   size a picture is brought to (the checkpoint's own)
    CARDSTOCK_MAX_IMAGES       pictures in one request (8)
    CARDSTOCK_MAX_IMAGE_MB     of one picture as sent (20)
    CARDSTOCK_MAX_OPEN_MEGAPIXELS   millions of pixels of all requests' opened pictures together (128)
    CARDSTOCK_MAX_BODY_MB      of one request (64)
    CARDSTOCK_MAX_TEXT_MB      of one request beside its pictures (2)
    CARDSTOCK_MAX_BODIES_MB    of all requests together, as long as they are not prompts yet (128)
    CARDSTOCK_MAX_QUEUE        requests that may wait (16); beyond, 503 with Retry-After
    CARDSTOCK_QUEUE_TIMEOUT    seconds that one may wait for room to open its pictures (60)
    CARDSTOCK_HEADER_TIMEOUT, CARDSTOCK_BODY_TIMEOUT   seconds in which a request's headers (10), body (60) must come
    CARDSTOCK_MAX_CONNECTIONS  at a time (256)
    CARDSTOCK_FETCH            off | public | any: which http(s) pictures are fetched (public: no private address)
    CARDSTOCK_MEDIA_DOMAINS    hosts that pictures are fetched from (none named: as CARDSTOCK_FETCH says)
    CARDSTOCK_FETCH_TIMEOUT    seconds for one picture (10)
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import import_structure  # type: ignore[import-not-found,unused-ignore]
import module_places  # type: ignore[import-not-found,unused-ignore]
from app import create_app  # type: ignore[import-not-found,unused-ignore]
from settings import (  # type: ignore[import-not-found,unused-ignore]
    Settings,
    parse_arguments,
    pixels,
    positive,
    settings,
)

log = logging.getLogger("cardstock")


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


def uvicorn_settings(what: Settings) -> dict[str, Any]:
    """How uvicorn serves: HTTP alone, by h11, within limits."""
    from connections import HEADER_BYTES, ConnectionLimits, protocol  # type: ignore[import-not-found,unused-ignore]

    limits = ConnectionLimits(what.max_connections, what.header_seconds, what.body_seconds)
    return {
        "http": protocol(limits), "ws": "none", "loop": "asyncio", "h11_max_incomplete_event_size": HEADER_BYTES,
        "timeout_keep_alive": 5, "proxy_headers": False, "server_header": False, "log_level": "warning",
        "timeout_graceful_shutdown": 5,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model, then serve until told to end."""
    args = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    what = settings(args, os.environ)
    port = args.port or positive(os.environ, "CARDSTOCK_PORT", 8000)
    gc.disable()  # imports leave no garbage, and looking for it is a quarter of their time
    module_places.replay()
    import_structure.replay()
    import uvicorn
    from awq_loader import LoadError  # type: ignore[import-not-found,unused-ignore]
    from generate import Transformers  # type: ignore[import-not-found,unused-ignore]

    start = time.monotonic()
    try:
        backend = Transformers(
            _folder(args.model), dtype=args.dtype, attention=args.attention, devices=_devices(args),
            max_model_len=args.max_model_len, dequantised=args.dequantise,
            min_pixels=pixels(os.environ, "CARDSTOCK_MIN_PIXELS"),
            max_pixels=pixels(os.environ, "CARDSTOCK_MAX_PIXELS"),
        )  # fmt: skip
    except LoadError as error:
        log.error("%s", error)
        return 1
    gc.freeze()
    gc.enable()
    log.info("%s on %s, %s, %s attention, %d tokens, loaded in %.1f s", args.model, backend.device, backend.dtype,
             args.attention, backend.max_model_len, time.monotonic() - start)  # fmt: skip
    uvicorn.run(create_app(backend, what), host=args.host, port=port, **uvicorn_settings(what))
    return 0


if __name__ == "__main__":
    sys.exit(main())
