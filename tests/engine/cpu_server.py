"""One server for all tests that need one: the CPU's image with the tiny AWQ checkpoint, started by `invoke serve`."""

from __future__ import annotations

import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.commands import serve as command
from images.core import process
from images.docker.containers import ContainerState
from images.docker.engine import Engine
from images.proof.tiny_model.checkpoint import write_checkpoint
from images.run.serve import pick
from images.run.serve import start as starting
from tests.helpers.contexts import context
from tests.helpers.matrices import matrix, variants

MODEL = "tiny"
# The server on transformers, which the same image can start: up in a fifth of the time that vLLM's imports take.
LIGHT = ("CARDSTOCK_ENGINE=transformers", "CARDSTOCK_DEFAULT_ARGS=[]")


@dataclass(frozen=True)
class CpuServer:
    """A healthy server, and the words that it was asked for with."""

    engine: Engine
    options: pick.ServeOptions

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.options.port}"

    @property
    def model(self) -> str:
        """What the API calls it."""
        return self.options.served

    @property
    def name(self) -> str:
        """The container's."""
        return self.options.name

    @property
    def container(self) -> ContainerState:
        """As the engine sees it now."""
        container = self.engine.containers.find(self.name)
        assert container
        return container

    def run(self, argv: Sequence[str]) -> str:
        """What a program in the container prints, run as the container's own user."""
        return docker(self.engine, ["exec", self.name, *argv])


def docker(engine: Engine, argv: Sequence[str]) -> str:
    """What the docker CLI prints."""
    program = shutil.which("docker", path=engine.cli_env().get("PATH"))
    assert program
    return process.run([program, *argv], env=engine.cli_env()).out


def short_limits(engine: Engine) -> tuple[str, ...]:
    """Times of the guard that tests can wait for; pictures are fetched from this machine, and from nowhere else."""
    gateway = docker(engine, ["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"])
    return (
        "CARDSTOCK_HEADER_TIMEOUT=4",
        "CARDSTOCK_BODY_TIMEOUT=8",
        "CARDSTOCK_FETCH=any",
        f"CARDSTOCK_MEDIA_DOMAINS={gateway.strip()}",
    )


def image_for_the_cpu() -> str:
    """The id of the matrix's variant without cards."""
    return next(v.id for v in variants().valid.values() if v.cuda is None)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with closing(socket.socket()) as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@contextmanager
def cpu_server(engine: Engine, folder: Path, env: Sequence[str] = ()) -> Iterator[CpuServer]:
    """Start it, give it to the tests, end it; it must end by itself when asked to, and leave nothing."""
    identifier = image_for_the_cpu()
    if engine.inspect(f"{matrix().image}:{identifier}") is None:
        pytest.skip(f"{identifier} is not built: ./inv build --only 'cpu*'")
    write_checkpoint(folder)
    name = cache = f"cardstock-test-{uuid.uuid4().hex[:8]}"
    words = pick.ServeOptions(
        model=str(folder), variant=identifier, name=name, port=free_port(), served=MODEL, cache=cache, wait=840, env=env
    )
    try:
        command.start_server(context(engine=engine, locked={}), words)
        yield CpuServer(engine, words)
        ended = starting.stop(engine.containers, name)
        assert ended.clean, f"it did not end by itself: exit code {ended.code}"
    finally:
        if engine.containers.find(name):
            engine.containers.remove(name)
        docker(engine, ["volume", "rm", "--force", cache])
