"""Servers under test on a machine without Docker: start one by the image's entry point, time its log, end it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images.core import process
from images.proof.on_card.runs.processes import process_tree
from images.proof.smoke import Client

# What vLLM 0.25 says, and what has ended when it says so.
MARKS = {
    "server's imports": r"non-default args|vLLM server version",
    "engine's process and imports": r"Initializing a V1 LLM engine",
    "distributed set-up": r"Starting to load model|Loading model from scratch",
    "weights": r"Model loading took",
    "compilation": r"torch\.compile took",
    "CUDA graphs": r"Graph capturing finished",
    "profile run, KV cache, warm-up": r"init engine \(profile",
    "server's start": r"Application startup complete",
}
TIMING_LINE = re.compile(
    "|".join((*MARKS.values(), r" took |attention backend|vit attention|FlashAttention version|KV cache"))
)
# Prints its process id and becomes the program: entry points do the same, so the id stays.
EXEC_WITH_PID = "import os, sys; print(os.getpid(), flush=True); os.execv(sys.argv[1], sys.argv[1:])"


class ServerFailed(Exception):
    """It ended, or did not get healthy; the message holds the end of its log."""


@dataclass
class StartedServer:
    """A running server: its port, seconds from the start to each line it wrote, and to its health."""

    port: int
    lines: list[tuple[float, str]] = field(default_factory=list)
    healthy: float = 0.0
    code: int | None = None
    pid: int = 0

    @property
    def client(self) -> Client:
        """Speaks to it."""
        return Client(self.port)

    def tail(self, count: int = 25) -> str:
        """The end of its log."""
        return "\n".join(line for _, line in self.lines[-count:])

    def stages(self) -> dict[str, float]:
        """Seconds from the process's start to the end of each stage that its log tells, in order."""
        seconds: dict[str, float] = {}
        for at, line in self.lines:
            for name, pattern in MARKS.items():
                if name not in seconds and re.search(pattern, line):
                    seconds[name] = round(at, 2)
        return seconds | ({"healthy": round(self.healthy, 2)} if self.healthy else {})

    def timing_lines(self) -> list[str]:
        """The lines about time, attention and memory, without their date."""
        kept = (line for _, line in self.lines if TIMING_LINE.search(line) and "config:" not in line)
        return [re.sub(r"^.*?(INFO|WARNING) [\d-]+ [\d:.]+ ", "", line)[:200] for line in kept][:30]

    def libraries(self, below: Sequence[Path]) -> list[str]:
        """Libraries below these folders that the server and its children have mapped."""
        mapped = set()
        for pid in process_tree(self.pid):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
                for place in {line.split(maxsplit=5)[-1] for line in text.splitlines() if ".so" in line}:
                    for folder in below:
                        if Path(place).is_relative_to(folder):
                            mapped.add(str(Path(place).relative_to(folder)))
        return sorted(mapped)


@contextmanager
def run_server(
    entrypoint: Path, words: Sequence[str], env: Mapping[str, str], port: int, limit: float, log: Path
) -> Iterator[StartedServer]:
    """Start, wait for /health, hand over, end by SIGTERM; all it wrote is left in ``log``. Raises ServerFailed."""
    server = StartedServer(port)
    argv = [sys.executable, "-c", EXEC_WITH_PID, sys.executable, str(entrypoint), *words, "--port", str(port)]
    begun = time.monotonic()

    def on_line(line: str) -> None:
        if not server.pid and line.strip().isdigit():
            server.pid = int(line)
        else:
            server.lines.append((time.monotonic() - begun, line))

    def work() -> None:
        server.code = process.stream(argv, on_line, env=dict(env), check=False)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not _answers(port):
            if server.code is not None:
                raise ServerFailed(f"it ended with {server.code}:\n{server.tail()}")
            if time.monotonic() - begun > limit:
                raise ServerFailed(f"not healthy after {limit:.0f} s:\n{server.tail()}")
            time.sleep(0.1)
        server.healthy = time.monotonic() - begun
        yield server
    finally:
        _end(server, thread)
        log.write_text("\n".join(f"{at:8.2f} {line}" for at, line in server.lines) + "\n", encoding="utf-8")


def _end(server: StartedServer, thread: threading.Thread) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if server.code is None and server.pid:
            everyone = process_tree(server.pid) if number == signal.SIGKILL else [server.pid]
            for pid in everyone:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        thread.join(timeout=30)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@dataclass(frozen=True)
class Streamed:
    """A streamed answer: seconds from the request to each event with tokens, and tokens told so far by then."""

    events: tuple[tuple[float, int], ...]
    text: str

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.events[0][0]

    @property
    def last(self) -> float:
        """Seconds to the last one."""
        return self.events[-1][0]

    def between(self, begin: float, end: float) -> int:
        """Tokens that came after ``begin`` and by ``end``."""
        until = max((count for at, count in self.events if at <= end), default=0)
        return until - max((count for at, count in self.events if at <= begin), default=0)


def stream(port: int, request: Mapping[str, Any], begun: float) -> Streamed:
    """One streamed chat completion with running counts of tokens; seconds count from ``begun`` (monotonic)."""
    body = {**request, "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
    events: list[tuple[float, int]] = []
    text = ""
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ServerFailed(f"status {answer.status}: {answer.read()[:400]!r}")
        for raw in answer:
            if raw.startswith(b"data: {"):
                event, at = json.loads(raw[6:]), time.monotonic() - begun
                count = (event.get("usage") or {}).get("completion_tokens", 0)
                if event["choices"] and count and (not events or count > events[-1][1]):
                    events.append((at, count))
                    text += event["choices"][0]["delta"].get("content") or ""
    finally:
        connection.close()
    if not events:
        raise ServerFailed("the stream held no token")
    return Streamed(tuple(events), text)
