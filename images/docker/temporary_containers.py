"""Containers and volumes of one run, through testcontainers: labelled, and gone when the run ends.

    python -m images.docker.temporary_containers RUN        remove what a run that crashed has left

Files go in through the engine's archive API, so an engine on another machine does as well. testcontainers would fetch
a reaper image from a registry; here everything is removed by its label instead.
"""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.waiting_utils import WaitStrategy, WaitStrategyTarget

from images.docker.container_arguments import create_arguments
from images.docker.container_spec import NO_CARDS, ContainerSpec, Mount
from images.docker.docker_py import translated
from images.docker.facts import host_of
from images.docker.gpu_access import NO_TOOLS, cdi_folders, gpu_tools, spec_by_way, way_to_cards
from images.docker.owners import RUN_LABEL, run_labels
from images.docker.published_ports import host_port_of
from images.docker.whose_machine import is_local

Content = Mapping[str, bytes | Path]


@dataclass(frozen=True)
class Output:
    """What a program in a container printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def tail(self) -> str:
        """The end of its errors, or of its output where it told none."""
        return "\n".join((self.err.strip() or self.out.strip()).splitlines()[-12:])


class TemporaryContainer:
    """A container that runs."""

    def __init__(self, container: DockerContainer) -> None:
        self._wrapped = container.get_wrapped_container()

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Output:
        """Execute a program as the container's user, to its end."""
        done = self._wrapped.exec_run(list(argv), environment=dict(env or {}), demux=True)
        out, err = cast("tuple[bytes | None, bytes | None]", done.output)
        return Output(int(done.exit_code or 0), *((text or b"").decode(errors="replace") for text in (out, err)))

    def inspect(self) -> Mapping[str, Any]:
        """The engine's answer to an inspect, as it is now."""
        self._wrapped.reload()
        return dict(self._wrapped.attrs)

    def host_port(self, container_port: int) -> int:
        """Where a published port is reached on the engine's machine. Raises EngineUnreachable where it is not."""
        return host_port_of(self.inspect(), container_port)

    def log(self, lines: int | None = None) -> str:
        """Its log, or the end of it."""
        return str(self._wrapped.logs(tail="all" if lines is None else lines).decode(errors="replace"))

    def stop(self, seconds: int) -> None:
        """Ask it to end, kill it after so many seconds."""
        self._wrapped.stop(timeout=seconds)


# Is it ready? It is given the container and the seconds since its start, and raises to give up.
Ready = Callable[[TemporaryContainer, float], bool]


class _Until(WaitStrategy):
    """Ask every second, without a limit: the question has its own."""

    def __init__(self, ready: Ready) -> None:
        super().__init__()
        self._ready = ready

    def wait_until_ready(self, container: WaitStrategyTarget) -> None:
        """Return once it is ready."""
        own, start = TemporaryContainer(cast(DockerContainer, container)), time.monotonic()
        while not self._ready(own, time.monotonic() - start):
            time.sleep(1)


class TemporaryContainers:
    """Makes the containers and volumes of one run on the engine of DOCKER_HOST, and removes them.

    Raises CardstockError for what the engine refuses, EngineUnreachable where none answers.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        testcontainers_config.ryuk_disabled = True
        with translated("no temporary containers can be made"):
            self._client = DockerClient().client
            self.engine_version = str(self._client.version()["Version"])

    def image(self, reference: str) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        """The engine's answers to an inspect of an image, and to its history."""
        with translated(f"{reference} could not be inspected"):
            found = self._client.images.get(reference)
            return dict(found.attrs), cast("list[dict[str, Any]]", found.history())

    def volume(self, image: str, content: Content, target: str) -> str:
        """A volume that holds ``content`` (relative path: bytes, or a host's file or folder); its name.

        A container of ``image``, which never starts, carries it there; in it the volume is at ``target``.
        """
        with translated("a volume could not be filled"):
            number = len(self._client.volumes.list(filters={"label": self._label}))
            name = f"cardstock-{self.run}-{number}"
            self._client.volumes.create(name, labels=run_labels(self.run))
            carrier = ContainerSpec(
                image, ("-",), mounts=(Mount(name, target, read_only=False),), network="none", read_only=False
            )
            made = self._client.containers.create(image, **create_arguments(self._labelled(carrier), {}))
            try:
                with tempfile.TemporaryFile() as packed:
                    pack(content, packed)
                    packed.seek(0)
                    made.put_archive(target, packed)
            finally:
                made.remove(force=True, v=True)
        return name

    def lasting_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """See that a volume is there which outlives the run."""
        with translated(f"the volume {name} could not be made"):
            self._client.volumes.create(name, labels=dict(labels))

    @contextmanager
    def running(
        self, spec: ContainerSpec, environment: Mapping[str, str] | None = None, ready: Ready | None = None
    ) -> Iterator[TemporaryContainer]:
        """A container, started and ``ready``; removed at the end, with its volumes without a name.

        ``environment`` has the values of ``spec.passed``. Raises what ``ready`` does.
        """
        with ExitStack() as stack:
            with translated(f"a container of {spec.image} could not be started"):
                made = _prepared(self._labelled(self._for_this_engine(spec)), environment or {})
                stack.callback(made.stop)
                if ready:
                    made.waiting_for(_Until(ready))
                made.start()
            yield TemporaryContainer(made)

    def _for_this_engine(self, spec: ContainerSpec) -> ContainerSpec:
        """The container with its cards asked for as this engine gives them."""
        if spec.gpus == NO_CARDS:
            return spec
        host = host_of(self._client.info())
        local = is_local(self._endpoint, host)
        return spec_by_way(spec, way_to_cards(host, gpu_tools(cdi_folders(host)) if local else NO_TOOLS))

    @property
    def _endpoint(self) -> str:
        """The engine's address; of a socket docker-py makes http+docker://localhost, of ssh http+docker://ssh."""
        at = str(self._client.api.base_url)
        return "unix://" if at.startswith("http+docker://local") else at

    @cached_property
    def beside(self) -> bool:
        """Whether ports that the engine publishes on loopback are this machine's."""
        with translated("the engine's machine could not be read"):
            return self._endpoint == "unix://" or is_local(self._endpoint, host_of(self._client.info()))

    def _labelled(self, spec: ContainerSpec) -> ContainerSpec:
        return replace(spec, labels=(*spec.labels, *run_labels(self.run).items()))

    @property
    def _label(self) -> str:
        return f"{RUN_LABEL}={self.run}"

    def close(self) -> int:
        """Remove the run's containers and volumes; how many."""
        with translated("what the run has made could not be removed"):
            containers = self._client.containers.list(all=True, filters={"label": self._label})
            for container in containers:
                container.remove(force=True, v=True)
            volumes = self._client.volumes.list(filters={"label": self._label})
            for volume in volumes:
                volume.remove(force=True)
        return len(containers) + len(volumes)


def _prepared(spec: ContainerSpec, environment: Mapping[str, str]) -> DockerContainer:
    """What testcontainers has a method for goes through it; the rest is docker-py's."""
    words = create_arguments(spec, environment)
    made = DockerContainer(spec.image, command=words.pop("command"), name=words.pop("name"))
    made.env, made.ports, made.tmpfs = words.pop("environment"), words.pop("ports"), words.pop("tmpfs")
    # The key "network" is there even if its value is None: without it testcontainers looks for a network itself.
    return made.with_kwargs(**words)


def pack(content: Content, out: Any) -> None:
    """An uncompressed tar of ``content`` with fixed times, readable by every user."""
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, source in content.items():
            if isinstance(source, bytes):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(source), 0o644
                tar.addfile(entry, io.BytesIO(source))
            else:
                tar.add(source, arcname=name, filter=_readable)


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o755 if entry.isdir() else 0o644
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    TemporaryContainers(sys.argv[1]).close()
