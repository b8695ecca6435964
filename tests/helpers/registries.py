"""A registry in memory, on loopback, that can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from tests.helpers.registry_auth import BASIC, Auth

Fault = int | Literal["reset", "cut", "short", "lie"]


@dataclass(frozen=True)
class Asked:
    """A request: method, path with its query, the headers, and the body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An answer: its status, body and headers. A body of many pieces has no length that is said before."""

    status: int
    body: bytes | Iterable[bytes] = b""
    headers: tuple[tuple[str, str], ...] = ()


Rule = Callable[[Asked], Reply | None]


@dataclass
class FakeRegistry:
    """What the registry holds, what it was asked ("GET /v2/…"), and what it is to do wrong next.

    ``faults`` are used up one a request whose path holds ``on``: a status (with Retry-After ``after``), "reset" (no
    answer), "cut" (half a body), "short" (half a body, with a length that says so), or "lie" (other bytes of the same
    length). ``tags`` is said instead of the list of tags. ``login`` is the Authorization header that it wants, ``auth``
    how it wants one to log in; ``logins`` are those headers as they came. ``elsewhere`` is another registry
    ("127.0.0.1:PORT") that it sends to for blobs and uploads. ``rules`` are asked first, the newest before the others,
    also for the token service; one that gives no reply leaves the request to the rest. ``meanwhile`` is called with
    each request before it is answered: what another does at that moment. ``ranges``: it gives parts of blobs.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    on: str = ""
    after: str | None = None
    tags: bytes | None = None
    login: str | None = None
    auth: Auth | None = None
    elsewhere: str = ""
    meanwhile: Callable[[str], None] | None = None
    ranges: bool = True
    logins: list[str] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else head and body of an answer are 40 ms apart
    shelf: FakeRegistry

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        challenges: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.send_response(status)
        for name, value in [*{"Content-Length": str(len(body)), **(headers or {})}.items(), *challenges]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reply(self, reply: Reply) -> None:
        if isinstance(reply.body, bytes):
            self._answer(reply.status, reply.body, challenges=reply.headers)
            return
        self.send_response(reply.status)
        for name, value in (*reply.headers, ("Connection", "close")):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        for piece in reply.body:
            self.wfile.write(piece)

    def _misbehaves(self, data: bytes) -> bool:
        shelf = self.shelf
        if not shelf.faults or shelf.on not in f"{self.command} {self.path}":
            return False
        fault = shelf.faults.pop(0)
        if isinstance(fault, int):
            self._answer(fault, b'{"errors": []}', {"Retry-After": shelf.after} if shelf.after else {})
        elif fault == "reset":
            self.close_connection = True
            self.connection.close()
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
        elif fault == "short":
            self._answer(200, data[: len(data) // 2])
        else:
            self._answer(200, bytes(byte ^ 1 for byte in data))
        return True

    def _handle(self) -> None:
        shelf = self.shelf
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        login = self.headers.get("Authorization", "")
        asked = Asked(self.command, self.path, dict(self.headers.items()), body)
        if reply := next((reply for rule in reversed(shelf.rules) if (reply := rule(asked))), None):
            shelf.asked.append(f"{self.command} {self.path}")
            shelf.logins.append(login)
            self._reply(reply)
            return
        if shelf.auth and self.path.partition("?")[0] == "/token":
            self._answer(*shelf.auth.token(self.command, self.path, body, login))
            return
        shelf.asked.append(f"{self.command} {self.path}")
        shelf.logins.append(login)
        if shelf.meanwhile:
            shelf.meanwhile(f"{self.command} {self.path}")
        if (challenges := self._challenges(login)) is not None:
            self._answer(401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "log in"}]}', challenges=challenges)
            return
        name = self.path.partition("?")[0].rpartition("/")[2]
        if "/blobs/uploads/" in self.path:
            self._upload(body)
        elif "/blobs/" in self.path:
            data = shelf.blobs.get(name)
            if self._misbehaves(data or b""):
                return
            self._blob(data)
        elif "/manifests/" in self.path:
            if self.command == "PUT":
                if self._misbehaves(b""):
                    return
                digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
                for reference in (name, digest):
                    shelf.manifests[reference] = (self.headers["Content-Type"], body)
                self._answer(201, headers={"Docker-Content-Digest": digest})
                return
            kind, data = shelf.manifests.get(name, ("", b""))
            if self._misbehaves(data):
                return
            self._answer(200 if data else 404, data, {"Content-Type": kind})
        elif "/tags/list" in self.path:
            self._tags()
        else:
            self._answer(404)

    def _challenges(self, login: str) -> Sequence[tuple[str, str]] | None:
        """The challenges that answer this login; None where it opens the registry."""
        shelf = self.shelf
        if shelf.login and login != shelf.login:
            return [("WWW-Authenticate", BASIC)]
        if shelf.auth and not shelf.auth.believes(login, self.command):
            repository = re.sub(r"^/v2/|/(blobs|manifests|tags)/.*$", "", self.path)
            return shelf.auth.headers(self.headers["Host"], repository, self.command, login)
        return None

    def _blob(self, data: bytes | None) -> None:
        if self.shelf.elsewhere:
            self._answer(307, headers={"Location": f"http://{self.shelf.elsewhere}{self.path}"})
        elif data is None:
            self._answer(404)
        elif self.shelf.ranges and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            rest = data[int(match[1]) : int(match[2]) + 1 if match[2] else None]
            self._answer(206 if rest else 416, rest)
        else:
            self._answer(200, data)

    def _upload(self, body: bytes) -> None:
        if self._misbehaves(b""):
            return
        if self.command == "POST":
            host = f"http://{self.shelf.elsewhere}" if self.shelf.elsewhere else ""
            self._answer(202, headers={"Location": f"{host}{self.path}session?state=1"})
            return
        digest = re.search(r"digest=(sha256:[0-9a-f]+)", self.path)
        assert digest
        if digest[1] != f"sha256:{hashlib.sha256(body).hexdigest()}":
            self._answer(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "not these bytes"}]}')
            return
        self.shelf.blobs[digest[1]] = body
        self._answer(201)

    def _tags(self) -> None:
        if self.shelf.tags is not None:
            self._answer(200, self.shelf.tags)
            return
        names = sorted(tag for tag in self.shelf.manifests if ":" not in tag)
        last = re.search(r"last=([^&]+)", self.path)
        rest = [name for name in names if last is None or name > last[1]]
        page = rest[:2]
        listed = ", ".join(f'"{name}"' for name in page)
        headers = {}
        if len(rest) > len(page):
            headers["Link"] = f'<{self.path.partition("?")[0]}?last={page[-1]}&n=2>; rel="next"'
        self._answer(200, f'{{"tags": [{listed}]}}'.encode(), headers)

    do_GET = do_HEAD = do_PUT = do_POST = _handle


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no news; what else fails is seen in the test."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def registry() -> Iterator[tuple[str, FakeRegistry]]:
    """A running registry: its "127.0.0.1:PORT", and what it holds."""
    shelf = FakeRegistry()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"shelf": shelf}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", shelf
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
