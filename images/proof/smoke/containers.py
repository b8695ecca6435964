"""Containers of an image under test, through testcontainers: locked down, labelled, and gone when the run ends.

    python -m images.proof.smoke.containers RUN        remove what a run that crashed has left

Every container runs as the image's own user, with a read-only root file system, no capabilities, no new privileges
and no network unless asked; nothing of the host is mounted save a local model folder, read-only. Files go in through
the engine's archive API, so an engine on another machine does as well.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from images.core import CheckFailed
from images.proof.smoke.findings import ImageConfig

RUN_LABEL = "dev.cardstock.run"
PROOF = "/proof"
TMPFS = "rw,exec,nosuid,nodev,mode=1777"
SLEEP = ["-c", "import time; time.sleep(7200)"]
GPU_REQUEST = {"count": -1, "capabilities": [["gpu"]]}
Content = Mapping[str, bytes | Path]


@dataclass(frozen=True)
class Output:
    """What a command in a container printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def tail(self) -> str:
        """The end of its errors, or of its output where it told none."""
        return "\n".join((self.err.strip() or self.out.strip()).splitlines()[-12:])


class RunningContainer:
    """A running container in which commands are executed."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Output:
        """Execute ``argv`` as the container's user, to its end."""
        wrapped = self._container.get_wrapped_container()
        done = wrapped.exec_run(list(argv), environment=dict(env or {}), demux=True)
        out, err = cast("tuple[bytes | None, bytes | None]", done.output)
        return Output(int(done.exit_code or 0), *((text or b"").decode(errors="replace") for text in (out, err)))


class ProofContainers:
    """Makes the containers of one run for one image, and removes them, on the engine of DOCKER_HOST."""

    def __init__(self, image: str, run: str, *, gpus: bool = False) -> None:
        self.image = image
        self.run = run
        self.gpus = gpus
        self.client = DockerClient().client
        found = self.client.images.get(image)
        self.image_id = str(found.id)
        self.config = ImageConfig.of(found.attrs, cast("list[dict[str, Any]]", found.history()))
        self.engine_version = str(self.client.version()["Version"])

    def proof_volume(self, content: Content) -> str:
        """A volume that holds ``content`` (relative path: bytes, or a host's file or folder); its name."""
        name = f"cardstock-proof-{self.run}-{len(self.client.volumes.list(filters={'label': self._label}))}"
        self.client.volumes.create(name, labels={RUN_LABEL: self.run})
        carrier = self.client.containers.create(
            self.image,
            ["-"],
            volumes={name: {"bind": PROOF, "mode": "rw"}},
            labels={RUN_LABEL: self.run},
            network_mode="none",
        )
        try:
            with tempfile.TemporaryFile() as packed:
                pack(content, packed)
                packed.seek(0)
                carrier.put_archive(PROOF, packed)
        finally:
            carrier.remove(force=True, v=True)
        return name

    @property
    def _label(self) -> str:
        return f"{RUN_LABEL}={self.run}"

    def container(
        self,
        command: Sequence[str],
        *,
        entrypoint: Sequence[str] | None = None,
        volumes: Mapping[str, tuple[str, str]] | None = None,
        env: Mapping[str, str] | None = None,
        network: bool = False,
        port: int | None = None,
        gpus: bool = False,
    ) -> DockerContainer:
        """A container, not started. ``volumes`` maps a volume or host folder to (path, "ro" or "rw").

        ``port`` is published on a free port of 127.0.0.1; it needs ``network``, the engine's default bridge.
        """
        made = DockerContainer(self.image).with_command(list(command)).with_envs(**dict(env or {}))
        taken = {path for path, _ in (volumes or {}).values()}
        for source, (path, mode) in (volumes or {}).items():
            made.with_volume_mapping(source, path, mode)
        for path in writable(self.config, taken):
            made.with_tmpfs_mount(path, tmpfs_options(self.config.user))
        if port is not None:
            made.ports = cast("dict[str, int | None]", {f"{port}/tcp": ("127.0.0.1", None)})
        return made.with_kwargs(
            labels={RUN_LABEL: self.run},
            entrypoint=None if entrypoint is None else list(entrypoint),
            network_mode="bridge" if network else "none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            shm_size="1g",
            # Where another program runs instead of the server, the server's health is no question.
            healthcheck=None if entrypoint is None else {"test": ["NONE"]},
            device_requests=[GPU_REQUEST] if gpus else None,
        )

    @contextmanager
    def box(self, volume: str, *, gpus: bool = False) -> Iterator[RunningContainer]:
        """A container that sleeps, the proof volume at /proof, no network. Raises CheckFailed if it cannot start."""
        made = self.container(SLEEP, entrypoint=["python"], volumes={volume: (PROOF, "ro")}, gpus=gpus)
        try:
            try:
                made.start()
            except Exception as error:
                raise CheckFailed(
                    "no container of the image can be started", cause=str(error), do="see that its PATH holds python"
                ) from error
            yield RunningContainer(made)
        finally:
            made.stop()

    def close(self) -> None:
        """Remove the run's containers and volumes."""
        remove_run(self.client, self.run)


def tmpfs_options(user: str) -> str:
    """Mount options that let ``user`` write: the mount gets the mode of the folder below it, but not its owner."""
    uid, _, gid = user.partition(":")
    return TMPFS + (f",uid={uid}" if uid.isdigit() else "") + (f",gid={gid}" if gid.isdigit() else "")


def writable(config: ImageConfig, taken: set[str]) -> list[str]:
    """Where a container of this image may write, as tmpfs: /tmp, its volumes and its cache, without what is mounted."""
    wanted = ["/tmp", *config.volumes]  # noqa: S108  # a path in the container
    wanted += [config.env[name] for name in ("XDG_CACHE_HOME", "HF_HOME", "VLLM_CACHE_ROOT") if name in config.env]
    out: list[str] = []
    for path in sorted(wanted, key=len):
        above = {str(parent) for parent in (PurePosixPath(path), *PurePosixPath(path).parents)}
        if path.startswith("/") and not above.intersection([*out, *taken]):
            out.append(path)
    return out


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


def is_local(environment: Mapping[str, str]) -> bool:
    """Whether the engine runs on this machine, so that a folder can be mounted instead of copied."""
    return environment.get("DOCKER_HOST", "unix://").startswith("unix://")


def remove_run(client: Any, run: str) -> int:
    """Remove every container and volume that carries the run's label; how many."""
    filters = {"label": f"{RUN_LABEL}={run}"}
    found = [*client.containers.list(all=True, filters=filters)]
    for container in found:
        container.remove(force=True, v=True)
    volumes = [*client.volumes.list(filters=filters)]
    for volume in volumes:
        volume.remove(force=True)
    return len(found) + len(volumes)


if __name__ == "__main__":
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    remove_run(DockerClient().client, sys.argv[1])
