"""A server under test: started, waited for by its own health check, ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from images.core import CheckFailed, EngineUnreachable
from images.docker import ContainerSpec, TemporaryContainer, TemporaryContainers
from images.proof.smoke.client import Client, InsideClient
from images.proof.smoke.health import Health, unhealthy_text


@dataclass(frozen=True)
class Healthy:
    """Is a container healthy by the image's own check? Raises CheckFailed once it will not be, or after ``limit`` s."""

    limit: float

    def __call__(self, container: TemporaryContainer, waited: float) -> bool:
        """Ask once; a container that ended is not waited for."""
        health = Health.of(container.inspect())
        if health.verdict is False or (waited > self.limit and not health.verdict):
            what, cause, do = unhealthy_text(health, container.log(), waited)
            raise CheckFailed(what, cause=cause, do=do)
        return bool(health.verdict)


@dataclass(frozen=True)
class Server:
    """A healthy server: its container, a client, the name it serves its model under, seconds from start to healthy."""

    container: TemporaryContainer
    client: Client
    name: str
    seconds: float


@contextmanager
def running_server(temporary: TemporaryContainers, spec: ContainerSpec, name: str, limit: float) -> Iterator[Server]:
    """Start a container with one published port and wait ``limit`` seconds for its health; remove it at the end.

    Raises CheckFailed when it does not get healthy.
    """
    start = time.monotonic()
    with temporary.running(spec, ready=Healthy(limit)) as container:
        inner = spec.ports[0].container_port
        seconds = round(time.monotonic() - start, 1)
        yield Server(container, _client(temporary, container, inner), name, seconds)


def _client(temporary: TemporaryContainers, container: TemporaryContainer, port: int) -> Client:
    """On the published port, or from inside where that is another machine's, or the engine has published none."""
    if temporary.beside:
        with suppress(EngineUnreachable):
            return Client(container.host_port(port))
    return InsideClient(container, port)
