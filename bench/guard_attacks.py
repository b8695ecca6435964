"""Attacks on vLLM's own server, each bounded: what the bench of the guard and the tests that fire at it share."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import payloads
from bench.firing import CHAT, Reply, closed_within, lines_held, send, send_all

MB = 2**20
# Forms of Host of which vLLM below 0.22 makes a URL whose path is not the one that is served (CVE-2026-48746).
HOSTS = ("a/health?", "127.0.0.1/x", "x/?", "x#", "u@127.0.0.1", "127.0.0.1:8000/health")


@dataclass(frozen=True)
class Target:
    """A server on loopback, what its API calls the model, and what tells of its answers' times.

    ``video`` is a video of many pixels, where one could be made; ``patience`` seconds for an answer.
    """

    port: int
    model: str
    video: bytes = b""
    patience: float = 60.0

    def post(self, body: bytes, path: str = CHAT, **headers: str) -> Reply:
        """One request with JSON."""
        return send(self.port, payloads.request(path, body, **headers), self.patience)

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        """One request without a body."""
        told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        host = "" if "host" in headers else "host: 127.0.0.1\r\n"
        return send(
            self.port, f"{method} {path} HTTP/1.1\r\n{host}{told}connection: close\r\n\r\n".encode(), self.patience
        )


@dataclass(frozen=True)
class Attack:
    """``fire`` sends it; ``refused`` are the statuses of its replies behind the guard."""

    name: str
    fire: Callable[[Target], Sequence[Reply]]
    refused: frozenset[int]


def _chat(target: Target, **fields: object) -> list[Reply]:
    return [target.post(payloads.chat(target.model, **fields))]


def _pictures(target: Target, urls: list[str]) -> list[Reply]:
    return [target.post(payloads.with_pictures(target.model, urls))]


def wide(target: Target) -> list[Reply]:
    """2 MB of messages that are none."""
    return [target.post(payloads.wide_body(target.model, 2))]


def huge_pictures(target: Target) -> list[Reply]:
    """Eight pictures of 64 megapixels, in 2.7 MB."""
    url = payloads.data_url(payloads.png(8000, 8000))
    return _pictures(target, [url] * 8)


def broken_picture(target: Target) -> list[Reply]:
    """The first stage of CVE-2026-22778: a picture that is none."""
    return _pictures(target, [payloads.data_url(b"no picture at all")])


def video(target: Target) -> list[Reply]:
    """A small file of many pixels."""
    url = payloads.data_url(target.video or b"\0\0\0\x18ftypmp42", "video/mp4")
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What?"}]
    return _chat(target, content=content)


def inner_addresses(target: Target) -> list[Reply]:
    """Pictures at the server's own port and at one that is closed: the answers must not tell them apart."""
    urls = [
        "http://127.0.0.1:8000/version",
        "http://127.0.0.1:9/x",
        "http://localhost:8000/version",
        "file:///etc/passwd",
    ]
    return [_pictures(target, [url])[0] for url in urls]


def _beside(target: Target, attack: bytes) -> list[Reply]:
    """A request and, half a second later, a small structured one: a reply of status 0 where that one got no answer."""
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(target.post(attack)))
    thread.start()
    time.sleep(0.5)
    other = target.post(payloads.chat(target.model, structured_outputs={"choice": ["red", "blue"]}))
    thread.join()
    return replies if other.status == 200 else [*replies, Reply(0, other.body)]


def many_choices(target: Target) -> list[Reply]:
    """A choice of 30,000 texts, and another structured request beside it."""
    texts = [f"answer number {at}" for at in range(30_000)]
    return _beside(target, payloads.chat(target.model, structured_outputs={"choice": texts}))


def long_enum(target: Target) -> list[Reply]:
    """An enum of 100,000 entries, and another structured request beside it."""
    schema = {"type": "object", "properties": {"x": {"enum": [f"v{at}" for at in range(100_000)]}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return _beside(target, payloads.chat(target.model, response_format=form))


def long_text(target: Target) -> list[Reply]:
    """20 MB of prose."""
    return _chat(target, content="All work and no play makes a dull model. " * (20 * MB // 41))


def enlarged(target: Target) -> list[Reply]:
    """A small picture, and the wish that the processor makes it a huge one."""
    body = payloads.with_pictures(
        target.model, [payloads.data_url(payloads.png(64, 64))], mm_processor_kwargs={"min_pixels": 4 * 10**8}
    )
    return [target.post(body)]


def slow_headers(target: Target) -> list[Reply]:
    """25 connections with half of their headers; 408 for each that the server ends, 0 for each that it keeps."""
    with lines_held(target.port, payloads.half_headers(), 25) as held:
        closed = closed_within(held, min(target.patience, 15.0))
    return [Reply(408)] * closed + [Reply(0)] * (25 - closed)


def slow_bodies(target: Target) -> list[Reply]:
    """25 connections with all but one byte of 8 MB, held while another asks."""
    with lines_held(target.port, payloads.begun_body(8), 25):
        return [Reply(503 if target.get("/health").status == 200 else 0)]


def together(target: Target) -> list[Reply]:
    """Ten bodies of 60 MB at once."""
    body = payloads.chat(target.model, x="a" * (60 * MB))
    return send_all(target.port, [payloads.request(CHAT, body)] * 10, target.patience)


def cross_site(target: Target) -> list[Reply]:
    """A page of another site: with its Origin, as a text, and asking whether it may ask."""
    body = payloads.chat(target.model)
    ask = {"origin": "https://evil.example", "access_control_request_method": "POST"}
    return [
        target.post(body, origin="https://evil.example"),
        target.post(body, content_type="text/plain"),
        target.get(CHAT, "OPTIONS", **ask),
    ]


def rebinding(target: Target) -> list[Reply]:
    """A name that a stranger has pointed at this machine, and headers that are no host."""
    return [target.get("/v1/models", host=host) for host in ("evil.example", *HOSTS)]


def parameters(target: Target) -> list[Reply]:
    """Stops of a million characters, token ids below 0, templates, embeddings, thousands of answers."""
    completion = {"model": target.model, "prompt": [-1, -2], "max_tokens": 1}
    return [
        *_chat(target, stop="a" * 10**6),
        *_chat(target, n=10_000),
        *_chat(target, chat_template="{% for a in range(9) %}{% endfor %}"),
        *_chat(target, content=[{"type": "image_embeds", "image_embeds": "AAAA"}]),
        target.post(json.dumps(completion).encode(), "/v1/completions"),
    ]


def malformed(target: Target) -> list[Reply]:
    """Bodies that a parser would work on for long, or that two would read in two ways."""
    return [
        target.post(payloads.deep_body(target.model, 8)),
        target.post(payloads.nested_lists(target.model, 2)),
        target.post(payloads.quotes(target.model, 60)),
        target.post(payloads.surrogate(target.model)),
        target.post(b'{"model": "a", "model": %s, "messages": []}' % json.dumps(target.model).encode()),
        target.post(b'{"temperature": NaN}'),
    ]


ATTACKS = (
    Attack("a body of many wrong elements (2 MB)", wide, frozenset({413})),
    Attack("bodies that are hard to read", malformed, frozenset({400, 413})),
    Attack("eight pictures of 8000 x 8000", huge_pictures, frozenset({413})),
    Attack("a picture that is none", broken_picture, frozenset({400})),
    Attack("a picture that the processor enlarges", enlarged, frozenset({400})),
    Attack("a video", video, frozenset({400})),
    Attack("pictures by inner addresses", inner_addresses, frozenset({400})),
    Attack("a choice of 30,000 texts", many_choices, frozenset({413})),
    Attack("an enum of 100,000 entries", long_enum, frozenset({413})),
    Attack("a text of 20 MB", long_text, frozenset({413})),
    Attack("stops, templates, embeddings, answers, token ids", parameters, frozenset({400})),
    Attack("a page of another site", cross_site, frozenset({403, 415})),
    Attack("a name of another's, and Hosts that are none", rebinding, frozenset({400, 403})),
    Attack("ten bodies of 60 MB at once", together, frozenset({413, 503})),
    Attack("25 half-sent headers", slow_headers, frozenset({408})),
    Attack("25 half-sent bodies", slow_bodies, frozenset({503})),
)
