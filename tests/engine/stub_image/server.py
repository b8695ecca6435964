"""A stand-in for an engine's server, inside the stand-in image: right golden answers, or the fault that FAULT names."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

FAULT = os.environ.get("FAULT", "")
# Last text and pictures of a request -> tokens, texts, logprobs, text (made by tests/engine/test_smoke.py).
ANSWERS = json.loads(Path("/opt/cardstock/answers.json").read_text())


def request_key(messages: list[dict[str, Any]]) -> str:
    """What tells one golden conversation from another."""
    return json.dumps(messages, sort_keys=True)


def answer(request: dict[str, Any]) -> dict[str, Any] | None:
    """The choice for a request; None for one that is not golden."""
    golden = ANSWERS.get(request_key(request["messages"]))
    if golden is None:
        return None
    if FAULT == "bangs" or (FAULT == "bangs only here" and golden["tokens"] == [3, 4, 5]):
        golden = {"tokens": [0] * 4, "logprobs": [-1.0] * 4, "text": "!!!!"}
    shift = 0.5 if FAULT == "logprobs" else 0.0
    pairs = zip(golden["tokens"], golden["logprobs"], strict=True)
    rows = [{"token": f"token_id:{token}", "logprob": logprob - shift} for token, logprob in pairs]
    rows = [{**row, "top_logprobs": [row]} for row in rows]
    return {
        "index": 0,
        "message": {"role": "assistant", "content": golden["text"]},
        "finish_reason": "length" if golden["text"] == "!!!!" else "stop",
        "logprobs": {"content": rows},
    }


class Handler(BaseHTTPRequestHandler):
    """The few paths that the smoke test asks for."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def send_reply(self, status: int, body: str) -> None:
        """An answer with a body."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        """/health, /v1/models, /metrics."""
        name = sys.argv[sys.argv.index("--served-model-name") + 1]
        bodies = {"/health": "", "/v1/models": json.dumps({"data": [{"id": name}]}), "/metrics": "vllm:x 1\n"}
        self.send_reply(200 if self.path in bodies else 404, bodies.get(self.path, ""))

    def do_POST(self) -> None:
        """/v1/chat/completions."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = answer(request)
        if choice is None:
            return self.send_reply(
                500 if FAULT == "500" else 400, '{"error": {"message": "cannot identify image file"}}'
            )
        if not request.get("stream"):
            return self.send_reply(200, json.dumps({"choices": [choice]}))
        text = choice["message"]["content"]
        events = [{"delta": {"content": part}, "finish_reason": None} for part in text]
        events.append({"delta": {}, "finish_reason": choice["finish_reason"]})
        lines = [f"data: {json.dumps({'choices': [event]})}\n\n" for event in events]
        return self.send_reply(200, "".join(lines) + ("" if FAULT == "cut" else "data: [DONE]\n\n"))


def end(number: int, frame: FrameType | None) -> None:
    """On SIGTERM."""
    if FAULT != "deaf":
        sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    if FAULT == "dies":
        print("ModuleNotFoundError: No module named 'uvloop'", file=sys.stderr)
        sys.exit(1)
    model = sys.argv[sys.argv.index("--model") + 1]
    if model.startswith("/") and not Path(model, "config.json").is_file():
        sys.exit(f"{model} holds no config.json")
    if FAULT == "hangs":
        print("loading weights, shard 1 of 3", flush=True)
        time.sleep(600)
    if FAULT == "called":
        what = "cardstock: stand-in called: cufftExecC2C of libcufft.so.11, for Fourier transforms"
        print(f"(EngineCore pid=71) {what}: this image leaves that library out", file=sys.stderr, flush=True)
    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()  # in a container
