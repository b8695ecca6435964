"""A proxy on loopback in front of a registry, which does wrong what it is told to, once each."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP = frozenset({"connection", "transfer-encoding", "keep-alive"})
_PIECE = 1 << 16


@dataclass
class Fault:
    """What to do wrong with the next request whose "METHOD /path" holds ``on``.

    ``kind``: a status; "reset" (no answer), "cut" (half a body), "short" (half, said to be all), "slow" (a body in
    drops), "lie" (one bit is another), "none" (this one is let through), or a function to call before the request goes
    on.
    """

    on: str
    kind: int | str | Callable[[], None]
    after: str = ""


@dataclass
class FaultPlan:
    """Faults still to come, and how many were done."""

    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    done: int = 0
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: str) -> Fault | None:
        with self.lock:
            self.asked.append(request)
            for fault in self.faults:
                if fault.on in request:
                    self.faults.remove(fault)
                    self.done += 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: int
    plan: FaultPlan

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        fault = self.plan.take(f"{self.command} {self.path}")
        kind = fault.kind if fault else None
        if callable(kind):
            kind()
        if isinstance(kind, int) or kind == "reset":
            self.rfile.read(length if kind != "reset" else length // 2)
            self.close_connection = True
            if isinstance(kind, int):
                self.send_response(kind)
                if fault and fault.after:
                    self.send_header("Retry-After", fault.after)
                self.send_header("Content-Length", "2")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(b"{}")
            return
        try:
            self._forward(length, str(kind))
        except OSError:
            self.close_connection = True  # the registry or the client has gone: no answer

    def _forward(self, length: int, kind: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                connection.putheader(name, value)
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for piece in self._chunks() if chunked else self._body(length):
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        body = answer.read() if self.command != "HEAD" else b""
        if kind == "short":
            body = body[: len(body) // 2]
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() == "content-length" and kind == "short":
                value = str(len(body))
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.end_headers()
        self._answer(body, kind)
        connection.close()

    def _body(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self.rfile.read(min(length, _PIECE))
            if not piece:
                raise OSError("the client has gone")
            length -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, body: bytes, kind: str) -> None:
        if kind == "lie" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if kind == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif kind == "slow":
            for start in range(0, len(body), max(1, len(body) // 20)):
                self.wfile.write(body[start : start + max(1, len(body) // 20)])
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle


@contextmanager
def faulty(target: int) -> Iterator[FaultPlan]:
    """A running proxy in front of the registry at this port; its plan, with the proxy's own port."""
    plan = FaultPlan()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"target": target, "plan": plan}))
    server.daemon_threads = True
    plan.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield plan
    finally:
        with suppress(OSError):
            server.shutdown()
        server.server_close()
        thread.join()
