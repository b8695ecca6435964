"""Attacks fired at a real server on loopback, each bounded, and what they do to it: statuses, silence, memory."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Reply:
    """``status`` of an answer, 0 where none came (refused, cut off, too slow); its body, and its headers by name."""

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def send(port: int, raw: bytes, seconds: float = 60.0) -> Reply:
    """Put ``raw`` on the line and read one answer, also one that comes before all of it is sent."""
    try:
        with socket.create_connection((LOOPBACK, port), seconds) as line:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                line.sendall(raw)
            answer = http.client.HTTPResponse(line)
            answer.begin()
            body = answer.read().decode(errors="replace")
            return Reply(answer.status, body, {name.lower(): value for name, value in answer.getheaders()})
    except (OSError, http.client.HTTPException):
        return Reply(0)


def send_all(port: int, bodies: Sequence[bytes], seconds: float = 60.0) -> list[Reply]:
    """Several at once, each on a line of its own; answers in order."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda raw: send(port, raw, seconds), bodies))


@contextmanager
def lines_held(port: int, begun: bytes, count: int) -> Iterator[list[socket.socket]]:
    """``count`` connections that have sent ``begun`` and then say nothing; closed at the end."""
    held: list[socket.socket] = []

    def open_one(_: int) -> None:
        with contextlib.suppress(OSError):
            line = socket.create_connection((LOOPBACK, port), 10)
            held.append(line)
            line.settimeout(10)
            line.sendall(begun)

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(open_one, range(count)))
        yield held
    finally:
        for line in held:
            line.close()


def closed_within(held: Sequence[socket.socket], seconds: float) -> int:
    """How many of the connections the server closes within ``seconds``."""
    deadline, closed = time.monotonic() + seconds, 0
    for line in held:
        with contextlib.suppress(TimeoutError):
            line.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                while line.recv(65536):
                    pass
            except ConnectionError:
                pass
            closed += 1
    return closed


@dataclass
class Seen:
    """``silence``: the longest that /health took, in seconds; ``asked`` how often, ``well`` how often it was 200."""

    silence: float = 0.0
    asked: int = 0
    well: int = 0


@contextmanager
def health_watched(port: int, every: float = 0.1, patience: float = 90.0) -> Iterator[Seen]:
    """Ask /health over and over while the block runs."""
    seen, ended = Seen(), threading.Event()

    def look() -> None:
        while True:
            begin = time.monotonic()
            status = send(
                port, b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n", patience
            ).status
            seen.silence = max(seen.silence, time.monotonic() - begin)
            seen.asked += 1
            seen.well += status == 200
            if ended.wait(every):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join(patience)


@dataclass(frozen=True)
class Fired:
    """What an attack did: ``seconds`` it took, the ``growth`` of the server's memory in bytes, replies, health."""

    seconds: float
    growth: int
    replies: tuple[Reply, ...]
    health: Seen

    @property
    def statuses(self) -> list[int]:
        """Of the replies, in order."""
        return [reply.status for reply in self.replies]


class Memory:
    """The memory of a process and its peak, in bytes, told by ``run``: it runs a program where the process is."""

    def __init__(self, run: Callable[[Sequence[str]], str], pid: int) -> None:
        self._run, self._pid = run, pid

    def _status(self, name: str) -> int:
        told = self._run(["cat", f"/proc/{self._pid}/status"])
        return next(int(line.split()[1]) * 1024 for line in told.splitlines() if line.startswith(f"{name}:"))

    def now(self) -> int:
        """What it has now; from here on the peak counts anew."""
        self._run(["sh", "-c", f"echo 5 > /proc/{self._pid}/clear_refs"])
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most since `now`."""
        return self._status("VmHWM")


def fire(port: int, memory: Memory, attack: Callable[[], Sequence[Reply]]) -> Fired:
    """Run one attack and tell what it did."""
    before = memory.now()
    begin = time.monotonic()
    with health_watched(port) as health:
        replies = tuple(attack())
    seconds = time.monotonic() - begin
    return Fired(seconds, max(0, memory.peak() - before), replies, health)
