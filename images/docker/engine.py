"""The Docker engine, asked and told: images, archives, containers.

docker-py has no BuildKit, so builds go through the docker CLI (`Engine.cli_env` says how to call it); everything else
goes through here, and every refusal comes back as one of Cardstock's errors.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import requests.exceptions

from images.core import CardstockError, EngineUnreachable, Layout, PrintLine, process
from images.docker.container_arguments import create_arguments
from images.docker.container_spec import ALL_CARDS, NO_CARDS, ContainerSpec, Mount
from images.docker.containers import Containers
from images.docker.docker_py import API_SECONDS, SAVE_SECONDS, docker, translated
from images.docker.embedded import daemon as embedded
from images.docker.embedded import packages as home
from images.docker.facts import (
    ContainerFailed,
    HostFacts,
    ImageFacts,
    Ran,
    facts_of,
    host_of,
    parse_buildx,
    refused_pull,
    split_reference,
)
from images.docker.gpu_access import NO_TOOLS, Way, cdi_folders, gpu_tools, spec_by_way, way_to_cards
from images.docker.layer_store import keeps_in_containerd, layers_folder
from images.docker.owners import RUN_LABEL, is_left, run_labels
from images.docker.whose_machine import free_below, is_local

if TYPE_CHECKING:
    from docker.models.containers import Container

_IDLE = ("created", "exited", "dead")
# `docker buildx build --check`: in the client since 0.15, in the engine's own Dockerfile frontend since Docker 27.
_CHECK_BUILDX = (0, 15)
_CHECK_ENGINE = 27


class Engine:
    """An engine that answers. Methods raise EngineUnreachable when it stops doing so."""

    def __init__(
        self,
        client: docker.DockerClient,
        endpoint: str,
        *,
        layout: Layout,
        embedded: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        self._layout = layout
        self._environment = dict(environment or {})
        self.endpoint = endpoint  # unix://…, tcp://…, ssh://…
        self.embedded = embedded

    @cached_property
    def version(self) -> str:
        """The engine's version, as it says it."""
        with translated("the engine's version could not be read"):
            return str(self._client.version()["Version"])

    @cached_property
    def docker_version(self) -> str:
        """The version of Docker; empty where the engine is another that speaks its API, such as Podman."""
        return "" if self.host().podman else self.version

    @cached_property
    def containers(self) -> Containers:
        """Containers that stay; those of `run` are gone when it returns."""
        return Containers(self._client, translated, self._for_this_engine)

    def _for_this_engine(self, spec: ContainerSpec) -> ContainerSpec:
        """The container with its cards asked for as this engine gives them."""
        return spec if spec.gpus == NO_CARDS else spec_by_way(spec, self.way_to_cards)

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()

    def free_bytes(self) -> int | None:
        """Free bytes on the disk that the engine keeps layers on; None where that is no disk of this machine."""
        host = self.host()
        return free_below(Path(self.layers_folder())) if is_local(self.endpoint, host) and not host.desktop else None

    def host(self) -> HostFacts:
        """What the engine says of the machine it runs on."""
        with translated("the engine's machine could not be read"):
            return host_of(self._client.info())

    @cached_property
    def local(self) -> bool:
        """Whether it runs on this very machine, and so sees its cards and its folders."""
        return is_local(self.endpoint, self.host())

    @cached_property
    def beside(self) -> bool:
        """Whether containers mount this machine's folders and listen on its ports: here, or in a virtual machine of
        this user's (Docker Desktop), which is behind a socket and shares both.
        """
        return self.endpoint.startswith(("unix://", "npipe://")) or self.local

    @cached_property
    def way_to_cards(self) -> Way:
        """How it gives containers cards; "" where nothing does."""
        host = self.host()
        return way_to_cards(host, gpu_tools(cdi_folders(host)) if self.local else NO_TOOLS)

    def keeps_what_came(self) -> bool:
        """Whether layers of a failed pull stay for the next one: in the containerd store, not in the classic one."""
        with translated("the engine's store could not be read"):
            return keeps_in_containerd(self._client.info())

    def layers_folder(self) -> str:
        """The folder that the engine keeps layers in, as it says it."""
        with translated("the engine's data directory could not be read"):
            return str(layers_folder(self._client.info()))

    def keep_under_limit(self, say: PrintLine = lambda _: None) -> None:
        """After a build: trim the embedded engine if it is over its limit; an engine of the user's is not touched."""
        if self.embedded:
            embedded.keep_under_limit(self._layout, say=say)

    def make_room(self, need: int, say: PrintLine = lambda _: None) -> int | None:
        """`free_bytes`, once the embedded engine's build cache has gone as far as a build's ``need`` asks."""
        free = self.free_bytes()
        if self.embedded and free is not None and free < need:
            embedded.free_disk_space(need - free, self._layout, say=say)
            free = self.free_bytes()
        return free

    # The docker CLI and buildx

    @cached_property
    def _cli(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """Environment and buildx version of a docker CLI that can build with this engine."""
        own = self._own_env()
        version = self._probe_buildx(self._environment)
        if version is not None:
            return dict(self._environment), version
        with suppress(CardstockError):
            embedded.provide_cli(self._layout)
            version = self._probe_buildx(own)
        if version is None:
            raise EngineUnreachable(
                "an engine answers, but docker buildx is missing",
                cause="docker buildx version does not run, and no packages could be fetched to make up for it",
                do="install the docker CLI and its buildx plug-in (Debian 13: docker-cli docker-buildx)",
            )
        return own, version

    @staticmethod
    def _probe_buildx(environment: Mapping[str, str]) -> tuple[int, ...] | None:
        with suppress(process.ProcessFailed):
            return parse_buildx(process.run(["docker", "buildx", "version"], env=environment, timeout=60).out)
        return None

    def found_buildx(self) -> tuple[int, ...] | None:
        """The version of the buildx that is there; None where one would have to be fetched. Changes nothing."""
        return self._probe_buildx(self._environment) or self._probe_buildx(self._own_env())

    def client_env(self) -> dict[str, str]:
        """What to add to the environment so that ``docker run …`` and docker-py meet this engine, without buildx.

        Raises EngineUnreachable where there is no docker CLI and none can be fetched.
        """
        for known in (dict(self._environment), self._own_env()):
            if shutil.which("docker", path=known.get("PATH")):
                return known
        return self.cli_env()

    def _own_env(self) -> dict[str, str]:
        """The environment with the CLI that this project has fetched, or would."""
        meet = {"DOCKER_HOST": self.endpoint, **self._environment}
        return {**home.cli_env(self._layout), **meet}

    def cli_env(self) -> dict[str, str]:
        """What to add to the environment so that ``docker buildx …`` is found and meets this engine.

        Raises EngineUnreachable where there is no buildx and none can be fetched.
        """
        return dict(self._cli[0])

    def buildx_version(self) -> tuple[int, ...]:
        """The version of buildx, as numbers."""
        return self._cli[1]

    def has_buildx_check(self) -> bool:
        """Whether ``docker buildx build --check`` works with this client and this engine's own builder."""
        return self._cli[1] >= _CHECK_BUILDX and int(self.version.split(".")[0]) >= _CHECK_ENGINE

    # Images

    def inspect(self, reference: str) -> ImageFacts | None:
        """Facts of a local image; None where the engine has none of this name."""
        with translated(f"{reference} could not be inspected"):
            try:
                return facts_of(self._client.images.get(reference).attrs)
            except docker.errors.NotFound:
                return None

    def images(self, label: str) -> tuple[ImageFacts, ...]:
        """All local images with this label (``key`` or ``key=value``), untagged ones too."""
        with translated("the engine's images could not be listed"):
            rows = self._client.api.images(filters={"label": label})
        facts = (self.inspect(row["Id"]) for row in rows)
        return tuple(fact for fact in facts if fact is not None)

    def tags(self, repository: str) -> frozenset[str]:
        """The local tags of a repository, such as "cardstock/staging:0123"."""
        with translated(f"the tags of {repository} could not be listed"):
            rows = self._client.api.images(name=repository)
        return frozenset(tag for row in rows for tag in row.get("RepoTags") or ())

    def tag(self, reference: str, new: str) -> None:
        """Give an image one more name."""
        with translated(f"{reference} could not be tagged {new}"):
            self._client.api.tag(reference, *split_reference(new), force=True)

    def untag(self, reference: str, *, force: bool = False) -> bool:
        """Take a name away, and the image with its last name; whether there was one. ``force``: even if in use."""
        with translated(f"{reference} could not be removed"):
            try:
                self._client.api.remove_image(reference, force=force)
            except docker.errors.NotFound:
                return False
        return True

    def registry_digest(self, reference: str) -> str | None:
        """The digest ("sha256:…") that the registry has for ``reference``; None where the engine cannot get it."""
        try:
            return str(self._client.images.get_registry_data(reference).id)
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            return None

    def pull(self, reference: str, say: PrintLine = lambda _: None) -> None:
        """Have the engine fetch ``repository@sha256:…`` (it checks every digest); what it has already is not fetched.

        Raises RegistryFailure where the registry does not give it, Unsafe where what it gives is something else.
        """
        with translated(f"{reference} could not be pulled"):
            try:
                for line in self._client.api.pull(reference, stream=True, decode=True):
                    if "error" in line:
                        raise refused_pull(reference, str(line["error"]))
                    if str(line.get("status", "")).startswith(("Pull complete", "Retrying")):
                        say(f"{line.get('id', '')}: {line['status']}")
            except docker.errors.APIError as error:
                raise refused_pull(reference, str(error.explanation or error)) from error

    def import_tar(self, source: Path | IO[bytes], reference: str, changes: Sequence[str] = ()) -> ImageFacts:
        """Make a one-layer image of an uncompressed tar of a root file system.

        ``changes`` are Dockerfile instructions such as ``ENV A=b``. Raises CardstockError when the engine refuses.
        """
        if isinstance(source, Path):
            with source.open("rb") as handle:
                return self.import_tar(handle, reference, changes)
        repository, tag = split_reference(reference)
        with translated(f"{reference} could not be imported"):
            said = self._client.api.import_image_from_data(source, repository, tag, changes=list(changes))
        facts = self.inspect(reference)
        if facts is None or "errorDetail" in str(said):
            raise CardstockError(f"{reference} could not be imported", cause=f"the engine says: {said}")
        return facts

    @contextmanager
    def export_tar(self, reference: str) -> Iterator[Iterator[bytes]]:
        """The root file system of an image as chunks of an uncompressed tar, names from "/" on; no program of it runs.

        Copied, not exported: after `docker export` engine 26 never lets go of a container's layer, nor so of the
        image's, which then stay on the disk for good (found on 26.1.5: layers without an owner after 311 exports).
        """
        with translated(f"{reference} could not be exported"):
            container = self._client.containers.create(reference, ["-"], labels=run_labels(uuid.uuid4().hex))
        try:
            with translated(f"{reference} could not be exported"):
                chunks = cast("Generator[bytes]", container.get_archive("/")[0])
                # Closed first: while the connection is open and unread, the engine does not remove the container, and
                # the wait for that would hide why the reader stopped.
                with closing(chunks):
                    yield _told(f"{reference} could not be exported", chunks)
        finally:
            with suppress(docker.errors.NotFound):
                container.remove(force=True)

    def layer_sizes(self, reference: str) -> tuple[int, ...]:
        """Bytes of each of an image's layers, unpacked, the newest first; steps that made no layer are 0."""
        with translated(f"the layers of {reference} could not be read"):
            rows = self._client.api.history(reference)  # type: ignore[no-untyped-call]
        return tuple(int(row["Size"]) for row in rows)

    def load(self, archive: Iterator[bytes]) -> None:
        """Take an image as `docker save` writes it. Raises Unsafe where layers are not those of its configuration."""
        with translated("the image could not be loaded"):
            for line in self._client.api.load_image(archive):  # type: ignore[no-untyped-call]
                if "error" in line:
                    raise refused_pull("the image", str(line["error"]))

    @contextmanager
    def save(self, reference: str) -> Iterator[Iterator[bytes]]:
        """An image as `docker save` writes it: chunks of a tar with each layer as a tar in it.

        The first comes late: Docker's own store writes every layer to its disk before (`saveSession` in moby's
        image/tarexport/save.go), which takes minutes for a large image on a slow one.
        """
        api = self._client.api
        usual, api.timeout = api.timeout, SAVE_SECONDS
        try:
            with translated(f"{reference} could not be saved"):
                chunks = iter(cast("Iterator[bytes]", api.get_image(reference)))
        finally:
            api.timeout = usual
        yield _told(f"{reference} could not be saved", chunks)

    @contextmanager
    def export_container(self, name: str) -> Iterator[Iterator[bytes] | None]:
        """The file system of a container, running or not, as chunks of a tar; None where there is none of this name."""
        what = f"the container {name} could not be exported"
        with translated(what):
            try:
                chunks = self._client.containers.get(name).get_archive("/")[0]
            except docker.errors.NotFound:
                chunks = None
        yield None if chunks is None else _told(what, chunks)

    # Containers

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        user: str | None = None,
        network: str = "none",
        mounts: Sequence[Mount] = (),
        files: Mapping[str, bytes | Path] | None = None,
        env: Mapping[str, str] | None = None,
        entrypoint: Sequence[str] | None = None,
        memory: int | None = None,
        gpus: bool = False,
        timeout: float = 600.0,
        run_id: str | None = None,
        check: bool = True,
    ) -> Ran:
        """Run a container to its end, collect its output, remove it.

        ``files`` (path: content, or a file of this machine) are put in before it starts; ``entrypoint=()`` drops the
        image's; ``memory`` is in bytes, ``timeout`` in seconds. It gets no capabilities, no new privileges, and no
        network unless named. Its root file system can be written: docker puts no files into a read-only one.
        Raises ContainerFailed with the end of the log on a non-zero exit (if ``check``) and on a timeout.
        """
        spec = ContainerSpec(
            image,
            tuple(command),
            entrypoint=None if entrypoint is None else tuple(entrypoint),
            env=tuple((env or {}).items()),
            mounts=tuple(mounts),
            gpus=ALL_CARDS if gpus else NO_CARDS,
            memory=memory or 0,
            network=network,
            labels=tuple(run_labels(run_id or uuid.uuid4().hex).items()),
            user=user or "",
            read_only=False,
            tmpfs=(),
        )
        with translated(f"a container of {image} could not be made"):
            arguments = create_arguments(self._for_this_engine(spec), {})
            container = self._client.containers.create(image, **arguments)
        try:
            with translated(f"a container of {image} could not be run"):
                if files:
                    with tempfile.TemporaryFile() as packed:
                        _tar(files, packed)
                        container.put_archive("/", packed)
                container.start()
                ran, expired = _await(container, timeout)
        finally:
            with suppress(docker.errors.DockerException, requests.exceptions.RequestException):
                container.remove(force=True, v=True)
        if expired:
            raise ContainerFailed(f"a container of {image} did not end within {timeout:g} s", ran)
        if check and ran.code:
            raise ContainerFailed(f"a container of {image} exited with {ran.code}: {' '.join(command)}", ran)
        return ran

    def cleanup(self, run_id: str | None = None, now: float | None = None) -> int:
        """Remove the containers and volumes of a run; how many.

        Without an id: those of runs whose process is known to have ended (killed, or gone with the machine), and ended
        ones that are older than a day, whosever they are. ``now`` is in Unix seconds.
        """
        filters: dict[str, Any] = {"label": f"{RUN_LABEL}={run_id}" if run_id else RUN_LABEL}
        moment = time.time() if now is None else now
        removed = 0
        with translated("what a run has left could not be removed"):
            for one in self._client.containers.list(all=True, filters=filters, ignore_removed=True):
                if run_id or is_left(one.labels, one.attrs.get("Created"), moment, idle=one.status in _IDLE):
                    with suppress(docker.errors.NotFound):
                        one.remove(force=True, v=True)
                        removed += 1
            for volume in self._client.volumes.list(filters=filters):
                labels = volume.attrs.get("Labels") or {}
                if run_id or is_left(labels, volume.attrs.get("CreatedAt"), moment, idle=True):
                    with suppress(docker.errors.NotFound, docker.errors.APIError):  # one in use stays
                        volume.remove()
                        removed += 1
        return removed

    def drop_name(self, reference: str, say: PrintLine = lambda _: None) -> bool:
        """Take a working name away when all is done; whether there was one. What holds it is said and passed over."""
        try:
            return self.untag(reference, force=True)
        except EngineUnreachable:
            raise
        except CardstockError as error:
            say(f"left as it is: {reference}: {error.cause}")
            return False


def _told(what: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of an answer; one that breaks off is the engine's, whatever its reader is doing."""
    with translated(what):
        yield from chunks


def _tar(files: Mapping[str, bytes | Path], packed: IO[bytes]) -> None:
    """Write a tar of files by absolute path, readable by all, and go back to its beginning."""
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode = 0o644
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
                entry.size = len(content) if isinstance(content, bytes) else content.stat().st_size
                tar.addfile(entry, source)
    packed.seek(0)


def _await(container: Container, timeout: float) -> tuple[Ran, bool]:
    """The end of a container and its output; killed, and told as expired, when it takes too long."""
    expired = False
    try:
        code = int(container.wait(timeout=timeout)["StatusCode"])
    except requests.exceptions.RequestException:
        # A read timeout comes as one of two types; if the engine is gone, the next call says so.
        expired = True
        with suppress(docker.errors.APIError):
            container.kill()
        code = int(container.wait(timeout=API_SECONDS)["StatusCode"])
    out, err = (container.logs(stdout=first, stderr=not first).decode(errors="replace") for first in (True, False))
    return Ran(code, out, err), expired
