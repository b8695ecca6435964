"""A client of the OpenAI API, as small as the smoke test needs it: plain HTTP to one port of 127.0.0.1, no proxies."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from images.core import CheckFailed
from images.proof.smoke.compare_logits import ModelAnswer

if TYPE_CHECKING:
    from images.docker import TemporaryContainer  # which a host with a card alone has not the packages for

TIMEOUT = 240.0


@dataclass(frozen=True)
class HttpAnswer:
    """An HTTP answer."""

    status: int
    body: str

    def json(self) -> Any:
        """The body as JSON. Raises CheckFailed with the body when it is none, or the status is not 200."""
        try:
            content = json.loads(self.body)
        except ValueError:
            content = None
        if self.status != 200 or content is None:
            raise CheckFailed(f"the server answered {self.status}", cause=self.body[:600] or "an empty body")
        return content


class Client:
    """Speaks to a server on a port of this machine."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = port

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> HttpAnswer:
        """One request. Raises CheckFailed when no answer comes."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return HttpAnswer(answer.status, answer.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException) as error:
            raise CheckFailed(
                f"{method} {path} got no answer", cause=f"{type(error).__name__}: {error}", do="read the server's log"
            ) from error
        finally:
            connection.close()

    def get(self, path: str) -> HttpAnswer:
        """GET ``path``."""
        return self.call("GET", path)

    def chat(self, request: Mapping[str, Any]) -> ModelAnswer:
        """A chat completion. Raises CheckFailed on any status but 200."""
        return read_completion(self.call("POST", "/v1/chat/completions", request).json())

    def stream(self, request: Mapping[str, Any]) -> ModelAnswer:
        """The same, streamed; raises CheckFailed when the stream does not end with [DONE]."""
        answer = self.call("POST", "/v1/chat/completions", {**request, "stream": True})
        if answer.status != 200:
            raise CheckFailed(f"the stream began with {answer.status}", cause=answer.body[:600])
        return read_stream(answer.body)


# It asks from inside of the server's container. A dot now and then: docker's connection ends where nothing is said.
_ASK = """
import http.client, sys, threading
port, method, path, *parts = sys.argv[1:]
done = threading.Event()
def dots():
    while not done.wait(10):
        print(".", file=sys.stderr, flush=True)
threading.Thread(target=dots, daemon=True).start()
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=240)
headers = {"Content-Type": "application/json"} if parts else {}
connection.request(method, path, "".join(parts).encode() if parts else None, headers)
answer = connection.getresponse()
sys.stdout.buffer.write(str(answer.status).encode() + b"\\n" + answer.read())
done.set()
"""
# Linux takes arguments of 128 KiB, and 2 MiB of all of them (MAX_ARG_STRLEN; a quarter of the stack's limit).
_PART, _MOST = 100_000, 1_800_000


class InsideClient(Client):
    """Speaks to a server from inside of its container: the ports of an engine on another machine are that machine's."""

    def __init__(self, container: TemporaryContainer, port: int) -> None:
        super().__init__(port)
        self._container = container

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> HttpAnswer:
        """One request. Raises CheckFailed when no answer comes."""
        text = "" if body is None else json.dumps(body)
        if len(text) > _MOST:
            raise CheckFailed(
                f"{method} {path} is too long to be asked on another machine",
                cause=f"it has {len(text)} characters, and {_MOST} can be handed to a container",
                do="prove this image on the engine's own machine",
            )
        parts = [text[at : at + _PART] for at in range(0, len(text), _PART)]
        done = self._container.run(["python", "-I", "-c", _ASK, str(self._port), method, path, *parts])
        status, _, said = done.out.partition("\n")
        if done.code or not status.isdigit():
            raise CheckFailed(f"{method} {path} got no answer", cause=done.tail, do="read the server's log")
        return HttpAnswer(int(status), said)


def chat_request(
    model: str, messages: Sequence[Mapping[str, Any]], *, max_tokens: int, token_ids: bool = False
) -> dict[str, Any]:
    """A greedy request that asks for logprobs; ``token_ids``: vLLM's extension that tells tokens by id."""
    request: dict[str, Any] = {
        "model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0,
        "logprobs": True, "top_logprobs": 5,
    }  # fmt: skip
    return {**request, "return_tokens_as_token_ids": True} if token_ids else request


def read_completion(body: Mapping[str, Any]) -> ModelAnswer:
    """What a completion says. Raises CheckFailed when it is not of the API's form."""
    try:
        choice = body["choices"][0]
        rows = (choice.get("logprobs") or {}).get("content") or []
        return ModelAnswer(
            text=choice["message"]["content"] or "",
            tokens=tuple(_token(row["token"]) for row in rows),
            logprobs=tuple(float(row["logprob"]) for row in rows),
            top=tuple(_top(row.get("top_logprobs") or ()) for row in rows),
            finish=choice.get("finish_reason") or "",
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        cause = f"{error!r} in {str(body)[:400]}"
        raise CheckFailed("the completion is not of the OpenAI form", cause=cause) from error


def _top(rows: Sequence[Mapping[str, Any]]) -> dict[int | str, float]:
    return {_token(row["token"]): float(row["logprob"]) for row in rows}


def _token(text: str) -> int | str:
    return int(text.partition(":")[2]) if text.startswith("token_id:") else text


def read_stream(body: str) -> ModelAnswer:
    """What the events of a stream say together. Raises CheckFailed when an event is broken or the end is missing."""
    text, finish, done = "", "", False
    for data in _events(body):
        if data == "[DONE]":
            done = True
            continue
        try:
            for choice in json.loads(data)["choices"]:
                text += choice["delta"].get("content") or ""
                finish = choice.get("finish_reason") or finish
        except (KeyError, ValueError) as error:
            cause = f"{error!r}: {data[:300]}"
            raise CheckFailed("an event of the stream is not of the OpenAI form", cause=cause) from error
    if not done:
        raise CheckFailed("the stream has no end ([DONE])", cause=body[-300:] or "it is empty")
    return ModelAnswer(text, finish=finish)


def _events(body: str) -> Iterator[str]:
    for line in body.splitlines():
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()
