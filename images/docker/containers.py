"""Containers that stay: started, watched, kept, stopped. `Engine.containers` hands them its client.

Nothing here waits or decides: its callers do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from images.core import CardstockError
from images.docker.container_arguments import create_arguments
from images.docker.container_spec import ContainerSpec
from images.docker.docker_py import docker
from images.docker.published_ports import check_published

Translated = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class ContainerState:
    """A container by name: the engine's answer to an inspect, its labels, whether it runs."""

    name: str
    attributes: Mapping[str, Any]

    @property
    def labels(self) -> Mapping[str, str]:
        """All of them."""
        return dict((self.attributes.get("Config") or {}).get("Labels") or {})

    @property
    def status(self) -> str:
        """ "running", "exited", "restarting" and so on."""
        return str((self.attributes.get("State") or {}).get("Status") or "unknown")

    @property
    def exit_code(self) -> int:
        """Of its last end."""
        return int((self.attributes.get("State") or {}).get("ExitCode") or 0)

    @property
    def restarts(self) -> int:
        """How often its policy has started it again."""
        return int(self.attributes.get("RestartCount") or 0)


class Containers:
    """Containers by name. Every method raises CardstockError for a refusal, EngineUnreachable for no answer."""

    def __init__(
        self, client: Any, translated: Translated, adapted: Callable[[ContainerSpec], ContainerSpec] = lambda spec: spec
    ) -> None:
        self._client = client
        self._translated = translated
        self._adapted = adapted  # a container as this engine has to be asked for it

    def find(self, name: str) -> ContainerState | None:
        """The container of this very name; None where there is none."""
        with self._translated(f"the container {name} could not be looked for"):
            for one in self._client.containers.list(all=True, filters={"name": f"^/{name}$"}, ignore_removed=True):
                return ContainerState(name, one.attrs)
        return None

    def labelled(self, label: str) -> tuple[ContainerState, ...]:
        """Those that carry this label (``key`` or ``key=value``), running or not."""
        with self._translated("the engine's containers could not be listed"):
            rows = self._client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return tuple(ContainerState(row.name, row.attrs) for row in rows)

    def start(self, spec: ContainerSpec, environment: Mapping[str, str]) -> None:
        """Make and start it; ``environment`` has the values of ``spec.passed``.

        One that cannot start is removed, and one that nobody could reach at the ports that it publishes.
        """
        what = f"a container of {spec.image} could not be started"
        with self._translated(what):
            arguments = create_arguments(self._adapted(spec), environment)
            made = self._client.containers.create(spec.image, **arguments)
        try:
            with self._translated(what):
                made.start()
                if reached := [port.container_port for port in spec.ports if spec.network in ("", "bridge")]:
                    made.reload()
            if reached:
                check_published(made.attrs, reached)
        except CardstockError:
            made.remove(force=True, v=True)
            raise

    def execute(self, name: str, command: Sequence[str]) -> tuple[int, str]:
        """Run a program in a running container: its exit code and what it printed."""
        with self._translated(f"{command[0]} could not be run in {name}"):
            done = self._client.containers.get(name).exec_run(list(command))
        return int(done.exit_code), done.output.decode(errors="replace")

    def ended(self, name: str, seconds: int) -> tuple[int, str]:
        """Wait until it ends: its exit code and its log."""
        with self._translated(f"{name} did not end within {seconds} s"):
            code = self._client.containers.get(name).wait(timeout=seconds)["StatusCode"]
        return int(code), self.log(name)

    def first_end(self, name: str, since: float) -> int | None:
        """The exit code of its first end since then (Unix seconds), as the engine has noted it; None where it has not.

        A container that its policy has started again says 0 of itself.
        """
        with self._translated(f"the end of {name} could not be read"):
            wanted = {"container": name, "event": "die"}
            told = self._client.events(since=int(since), until=int(time.time()) + 1, filters=wanted, decode=True)
            codes = [str((one.get("Actor") or {}).get("Attributes", {}).get("exitCode", "")) for one in told]
        return next((int(code) for code in codes if code.lstrip("-").isdigit()), None)

    def restart(self, name: str, seconds: int) -> None:
        """End it, by force after ``seconds``, and start it anew; one that does not run is started."""
        with self._translated(f"{name} could not be started again"):
            self._client.containers.get(name).restart(timeout=seconds)

    def keep(self, name: str, restart: str) -> None:
        """Give a running container its restart policy."""
        with self._translated(f"{name} could not be given a restart policy"):
            self._client.containers.get(name).update(restart_policy={"Name": restart})

    def log(self, name: str, lines: int = 200) -> str:
        """The end of its log."""
        with self._translated(f"the log of {name} could not be read"):
            return str(self._client.containers.get(name).logs(tail=lines).decode(errors="replace"))

    @contextmanager
    def archive(self, name: str, path: str) -> Iterator[Iterator[bytes] | None]:
        """A folder of a container, running or not, as chunks of a tar that begins with its name; None: there is none.

        A volume that the container mounts there is in it.
        """
        what = f"{path} of {name} could not be read"
        with self._translated(what):
            try:
                chunks = cast("Generator[bytes]", self._client.containers.get(name).get_archive(path)[0])
            except docker.errors.NotFound:
                chunks = None
        if chunks is None:
            yield None
            return
        with closing(chunks), self._translated(what):
            yield chunks

    def stop(self, name: str, seconds: int) -> ContainerState | None:
        """Ask it to end, kill it after ``seconds``; how it ended."""
        with self._translated(f"{name} could not be stopped"):
            self._client.containers.get(name).stop(timeout=seconds)
        return self.find(name)

    def make_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make an empty volume."""
        with self._translated(f"the volume {name} could not be made"):
            self._client.volumes.create(name, labels=dict(labels))

    def remove_volume(self, name: str) -> None:
        """Remove a volume, if there is one of this name."""
        with self._translated(f"the volume {name} could not be removed"):
            try:
                self._client.volumes.get(name).remove()
            except docker.errors.NotFound:
                return

    def remove(self, name: str) -> None:
        """Remove it, and its volumes without a name."""
        with self._translated(f"{name} could not be removed"):
            self._client.containers.get(name).remove(force=True, v=True)
