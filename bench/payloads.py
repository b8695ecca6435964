"""Requests that attack a server, as bytes: what the bench of attacks and the tests that fire them share. Pure."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

MB = 2**20


def chat(model: str, content: Any = "Say hello.", **fields: Any) -> bytes:
    """A right request of one turn; ``fields`` are added or replace its own."""
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": 4, **fields}).encode()


def with_pictures(model: str, urls: list[str], **fields: Any) -> bytes:
    """A request that shows pictures, by their URLs."""
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return chat(model, [*content, {"type": "text", "text": "What colour?"}], **fields)


def wide_body(model: str, megabytes: int) -> bytes:
    """Messages that are empty lists, as many as there is room for: a parser makes a value of each."""
    head = b'{"model": %s, "messages": [' % json.dumps(model).encode()
    return head + b",".join([b"[]"] * (megabytes * MB // 3)) + b"]}"


def deep_body(model: str, megabytes: int) -> bytes:
    """A list in a list in a list, in a field that nobody knows."""
    half = megabytes * MB // 2
    return b'{"model": %s, "x": ' % json.dumps(model).encode() + b"[" * half + b"]" * half + b"}"


def nested_lists(model: str, megabytes: int, depth: int = 100) -> bytes:
    """Many lists, each ``depth`` deep: below a parser's own limit of depth."""
    one = b"[" * depth + b"]" * depth
    head = b'{"model": %s, "x": [' % json.dumps(model).encode()
    return head + b",".join([one] * (megabytes * MB // (2 * depth + 1))) + b"]}"


def quotes(model: str, megabytes: int) -> bytes:
    """Empty strings without end, which is no JSON: a trap for what counts strings."""
    return b'{"model": %s, "x": ' % json.dumps(model).encode() + b'""' * (megabytes * MB // 2) + b"}"


def long_stop(model: str, letters: int) -> bytes:
    """A text to stop at that any answer may be the beginning of."""
    return chat(model, stop="a" * letters, max_tokens=8)


def surrogate(model: str) -> bytes:
    """Half a character, written as JSON allows, in the URL of a picture."""
    return with_pictures(model, ["data:,\ud800"])


def png(width: int, height: int, channels: int = 3, rows: int | None = None) -> bytes:
    """A picture of one colour, black: 1 (grey), 3 (RGB) or 4 (RGBA) channels; small, however many pixels it has.

    ``rows``: how many of its rows are there, where not all.
    """
    squeeze = zlib.compressobj(9)
    row = b"\0" + bytes(width * channels)
    data = b"".join(squeeze.compress(row) for _ in range(height if rows is None else rows)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, content) for name, content in chunks)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def data_url(picture: bytes, media: str = "image/png") -> str:
    """A picture inside of the request."""
    return f"data:{media};base64,{base64.b64encode(picture).decode()}"


def request(path: str, body: bytes, host: str = "127.0.0.1", **headers: str) -> bytes:
    """A whole POST as it goes over the line; a name in ``headers`` has _ for -, and replaces what is there."""
    lines = {"host": host, "content-type": "application/json", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    told = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST {path} HTTP/1.1\r\n{told}\r\n".encode() + body


def half_headers(host: str = "127.0.0.1") -> bytes:
    """The beginning of a request whose headers never end."""
    return f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nx-slow: ".encode()


def begun_body(megabytes: int, host: str = "127.0.0.1") -> bytes:
    """A request whose body lacks its last byte."""
    return request("/v1/chat/completions", b'"' + b"a" * (megabytes * MB), host)[:-1]
