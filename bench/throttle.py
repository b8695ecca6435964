"""A slow line on loopback: a proxy of ours between an engine and a registry that lets through so many bytes a second.

What it counts is what came over the wire: blobs, manifests and the heads of HTTP, without TCP's own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

# 100 Mbit/s, as bytes.
RATE = 12_500_000
CHUNK = 64 << 10
MOST_CONNECTIONS = 64
_IDLE = 300.0  # seconds without a byte, after which a connection is ended


@dataclass
class TokenBucket:
    """Lets through ``rate`` bytes a second, and after a pause ``burst`` at once; one for all connections together.

    ``now`` is a clock in seconds.
    """

    rate: float
    burst: float = CHUNK
    now: Callable[[], float] = time.monotonic
    _free_at: float = field(default=float("-inf"), init=False)

    def delay(self, count: int) -> float:
        """Take ``count`` bytes; the seconds to wait before they may go."""
        moment = self.now()
        # What was not used before counts up to one burst.
        begin = max(self._free_at, moment - self.burst / self.rate)
        self._free_at = begin + count / self.rate
        return max(0.0, self._free_at - moment)


@dataclass
class SlowLine:
    """A line to ``upstream`` (host, port) at ``port`` of 127.0.0.1; ``received`` and ``sent`` are bytes so far.

    Received is what the registry gave, which alone is slow; requests are small.
    """

    upstream: tuple[str, int]
    bucket: TokenBucket
    port: int = 0
    received: int = 0
    sent: int = 0
    _open: int = 0

    async def serve(self, ready: Callable[[], None], ended: asyncio.Event) -> None:
        """Listen until ``ended``; ``ready`` is called once ``port`` is known."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=CHUNK)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        try:
            await ended.wait()
        finally:
            server.close()  # and not waited for: what is still open is ended by `_run`

    async def _connection(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        writers = [answer]
        self._open += 1
        try:
            if self._open > MOST_CONNECTIONS:
                return
            source, request = await asyncio.open_connection(*self.upstream, limit=CHUNK)
            writers.append(request)
            await _both(self._requests(client, request), self._answers(source, answer))
        except (OSError, TimeoutError):
            pass  # the engine sees a connection that ended, and tries again
        finally:
            self._open -= 1
            for writer in writers:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _requests(self, client: asyncio.StreamReader, request: asyncio.StreamWriter) -> None:
        while chunk := await asyncio.wait_for(client.read(CHUNK), _IDLE):
            self.sent += len(chunk)
            request.write(chunk)
            await request.drain()

    async def _answers(self, source: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        while chunk := await asyncio.wait_for(source.read(CHUNK), _IDLE):
            await asyncio.sleep(self.bucket.delay(len(chunk)))
            self.received += len(chunk)
            answer.write(chunk)
            await answer.drain()


async def _both(*ways: Coroutine[None, None, None]) -> None:
    """Run both ways of a connection; when one ends, so does the other."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def slow_line(host: str, port: int, rate: float = RATE) -> Iterator[SlowLine]:
    """A slow line to a registry for as long as the block runs, in a thread of its own. Raises OSError."""
    line = SlowLine((host, port), TokenBucket(rate))
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(_run(line, ready, ended)), daemon=True)
    thread.start()
    try:
        if not ready.wait(30) or not line.port:
            raise OSError("no port of 127.0.0.1 could be taken")
        yield line
    finally:
        with suppress(RuntimeError):  # its thread ended with an error
            loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        if not thread.is_alive():
            loop.close()


async def _run(line: SlowLine, ready: threading.Event, ended: asyncio.Event) -> None:
    try:
        await line.serve(ready.set, ended)
    finally:
        ready.set()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
