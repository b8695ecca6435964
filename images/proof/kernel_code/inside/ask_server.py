"""Asks a server beside it all that makes it compile a kernel: runs in the server's container, standard library only.

    python ask_server.py --limit SECONDS [--port 8000] [--length TOKENS]

Prints one line of JSON: seconds until it was healthy, and of each request its status, or why there is no answer. What
the answers say is no question here: the weights may be random. Exit code 1 when the server never got healthy.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MODEL = "model"


def png(side: int, shade: int) -> str:
    """A grey square as a data: URL."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + bytes([shade]) * 3 * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(body).decode()


def call(port: int, method: str, path: str, body: dict[str, Any] | None, limit: float) -> tuple[int, str]:
    """Status and text of an answer; status 0 where none came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read(4000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def requests(length: int) -> dict[str, dict[str, Any]]:
    """What is asked, by a name: each takes another way through the sampler or the attention."""

    def chat(text: str, *pictures: str, tokens: int = 8, **more: Any) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
        message = {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
        return {"model": MODEL, "messages": [message], "max_tokens": tokens, "temperature": 0, **more}

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    # A token of the tiny tokenizer has a letter or more.
    long_text = "hello " * (length // 8)
    return {
        "text": chat("Say hello", tokens=24),
        "text again": chat("Say hello", tokens=24),
        "long text": chat(long_text),
        "picture": chat("What colour is this?", png(1000, 40)),
        "sampled": chat("Say hello", temperature=0.8, seed=7),
        "top-k, top-p": chat("Say hello", temperature=0.8, top_k=20, top_p=0.9),
        "min-p": chat("Say hello", temperature=0.8, min_p=0.1),
        "penalties": chat("hi", temperature=0.8, presence_penalty=0.4, frequency_penalty=0.4, repetition_penalty=1.1),
        "logprobs": chat("Say hello", logprobs=True, top_logprobs=5),
        "biased": chat("Say hello", logit_bias={"5": 2.0}, min_tokens=2),
        "bad words": chat("Say hello", bad_words=["model"]),
        "a schema": chat("Say hello", tokens=16, response_format=form),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--length", type=int, default=6000)
    words = parser.parse_args()
    begun = time.monotonic()
    while call(words.port, "GET", "/health", None, 5)[0] != 200:
        if time.monotonic() - begun > words.limit:
            print(json.dumps({"healthy": None, "asked": {}}))
            return 1
        time.sleep(1)
    told: dict[str, Any] = {"healthy": round(time.monotonic() - begun, 1), "asked": {}}

    def ask(name: str, body: dict[str, Any]) -> None:
        status, text = call(words.port, "POST", "/v1/chat/completions", body, 180)
        told["asked"][name] = status if status == 200 else f"{status}: {text[:300]}"

    for name, body in requests(words.length).items():
        ask(name, body)
    one = requests(words.length)["picture"]
    with ThreadPoolExecutor(8) as pool:
        for at in range(8):
            parts = one["messages"][0]["content"]
            other = [{"type": "image_url", "image_url": {"url": png(300 + 28 * at, 90)}}, parts[-1]]
            body = {**one, "max_tokens": 16, "messages": [{"role": "user", "content": other}]}
            pool.submit(ask, f"one of eight, {at + 1}", body)
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
