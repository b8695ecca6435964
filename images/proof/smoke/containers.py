"""Containers of an image under test: locked down as a user's are, and gone when the run ends.

Every container runs as the image's own user, with a read-only root file system, no capabilities, no new privileges
and no network unless asked; nothing of the host is mounted save a local model folder, read-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from images.core import CardstockError, CheckFailed
from images.docker import (
    ALL_CARDS,
    NO_CARDS,
    TMPFS,
    ContainerSpec,
    Mount,
    PublishedPort,
    TemporaryContainer,
    TemporaryContainers,
)
from images.proof.smoke.findings import ImageConfig

PROOF = "/proof"
SLEEP = ("-c", "import time; time.sleep(7200)")


class ProofContainers:
    """Makes the containers of one run for one image, and removes them, on the engine of DOCKER_HOST."""

    def __init__(self, image: str, run: str) -> None:
        self.image = image
        self.temporary = TemporaryContainers(run)
        attributes, history = self.temporary.image(image)
        self.image_id = str(attributes["Id"])
        self.config = ImageConfig.of(attributes, history)
        self.engine_version = self.temporary.engine_version

    def proof_volume(self, content: Mapping[str, bytes | Path]) -> str:
        """A volume that holds ``content`` (relative path: bytes, or a host's file or folder); its name."""
        return self.temporary.volume(self.image, content, PROOF)

    def spec(
        self,
        arguments: Sequence[str],
        *,
        entrypoint: Sequence[str] | None = None,
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        port: int | None = None,
        gpus: bool = False,
    ) -> ContainerSpec:
        """A container of the image; ``port`` is published on a free port of 127.0.0.1, which needs docker's bridge."""
        places = writable(self.config, {mount.target for mount in mounts})
        return ContainerSpec(
            image=self.image,
            arguments=tuple(arguments),
            entrypoint=None if entrypoint is None else tuple(entrypoint),
            env=tuple((env or {}).items()),
            mounts=tuple(mounts),
            ports=() if port is None else (PublishedPort(port),),
            gpus=ALL_CARDS if gpus else NO_CARDS,
            shm=1,
            network="none" if port is None else "bridge",
            # Where another program runs instead of the server, the server's health is no question.
            healthcheck=entrypoint is None,
            tmpfs=tuple((path, tmpfs_options(self.config.user)) for path in places),
        )

    @contextmanager
    def sleeping(self, volume: str, *, gpus: bool = False) -> Iterator[TemporaryContainer]:
        """A container that sleeps, the proof volume at /proof, no network. Raises CheckFailed if it cannot start."""
        spec = self.spec(SLEEP, entrypoint=["python"], mounts=[Mount(volume, PROOF)], gpus=gpus)
        with ExitStack() as stack:
            try:
                container = stack.enter_context(self.temporary.running(spec))
            except CardstockError as error:
                raise CheckFailed(
                    "no container of the image can be started",
                    cause=error.cause,
                    do="see that its PATH holds python",
                ) from error
            yield container

    def close(self) -> None:
        """Remove the run's containers and volumes."""
        self.temporary.close()


def tmpfs_options(user: str) -> str:
    """Mount options that let ``user`` write: the mount gets the mode of the folder below it, but not its owner."""
    uid, _, gid = user.partition(":")
    return TMPFS[1] + (f",uid={uid}" if uid.isdigit() else "") + (f",gid={gid}" if gid.isdigit() else "")


def writable(config: ImageConfig, taken: set[str]) -> list[str]:
    """Where a container of this image may write, as tmpfs: /tmp, its volumes and its cache, without what is mounted."""
    wanted = [TMPFS[0], *config.volumes]
    wanted += [config.env[name] for name in ("XDG_CACHE_HOME", "HF_HOME", "VLLM_CACHE_ROOT") if name in config.env]
    out: list[str] = []
    for path in sorted(wanted, key=len):
        above = {str(parent) for parent in (PurePosixPath(path), *PurePosixPath(path).parents)}
        if path.startswith("/") and not above.intersection([*out, *taken]):
            out.append(path)
    return out


def is_local(environment: Mapping[str, str]) -> bool:
    """Whether the engine runs on this machine, so that a folder can be mounted instead of copied."""
    return environment.get("DOCKER_HOST", "unix://").startswith("unix://")
