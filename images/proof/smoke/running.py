"""A server under test: started, waited for by its own health check, ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import WaitStrategy, WaitStrategyTarget

from images.core import CheckFailed
from images.proof.smoke.client import Client
from images.proof.smoke.health import Health, unhealthy_text


class Healthy(WaitStrategy):
    """Wait until the image's own health check says so. Raises CheckFailed with state, log tail and likely cause."""

    def wait_until_ready(self, container: WaitStrategyTarget) -> None:
        """Poll the engine; a container that ended is not waited for."""
        wrapped, start = container.get_wrapped_container(), time.monotonic()
        while True:
            wrapped.reload()
            health, waited = Health.of(wrapped.attrs), time.monotonic() - start
            if health.verdict:
                return
            if health.verdict is False or waited > self._startup_timeout:
                what, cause, do = unhealthy_text(health, wrapped.logs().decode(errors="replace"), waited)
                raise CheckFailed(what, cause=cause, do=do)
            time.sleep(1)


@dataclass(frozen=True)
class Server:
    """A healthy server: its container, a client, the name it serves its model under, seconds from start to healthy."""

    container: DockerContainer
    client: Client
    name: str
    seconds: float


@contextmanager
def running_server(made: DockerContainer, port: int, name: str, limit: float) -> Iterator[Server]:
    """Start a container whose ``port`` is published and wait ``limit`` seconds for its health; remove it at the end.

    Raises CheckFailed when it does not get healthy.
    """
    start = time.monotonic()
    made.waiting_for(Healthy().with_startup_timeout(int(limit)))
    try:
        made.start()
        ports = made.get_wrapped_container().attrs["NetworkSettings"]["Ports"]
        client = Client(int(ports[f"{port}/tcp"][0]["HostPort"]))
        yield Server(made, client, name, round(time.monotonic() - start, 1))
    finally:
        made.stop()
