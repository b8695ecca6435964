"""A container as one value: what it runs, what it sees, how it is locked down, how it is kept running. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from images.core import UsageError

# The root file system is read-only; many programs keep sockets and what they compile below /tmp.
TMPFS = ("/tmp", "rw,exec,nosuid,nodev,mode=1777")  # noqa: S108  (a path in the container)
RESTART = ("always", "unless-stopped", "on-failure", "no")
# SIGKILL comes so many seconds after SIGTERM.
STOP_TIMEOUT = 30
# Networks that are modes; any other is one of the user's, by name.
NETWORK_MODES = ("none", "host", "bridge")
# docker's own rule for names of containers.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MEMORY = re.compile(r"(\d{1,6})([gm])(?:i?b)?")
LEAST_MEMORY = 2**29
_NUMBER = re.compile(r"[0-9]{1,4}")
_DEVICE = re.compile(r"[0-9]{1,4}(:[0-9]{1,2})?|(GPU|MIG)-[0-9a-zA-Z/-]{1,80}")


# The kind of the CDI devices that NVIDIA's generator (nvidia-ctk cdi generate) names by index, by UUID, and "all".
CDI_KIND = "nvidia.com/gpu"


@dataclass(frozen=True)
class Gpus:
    """The cards of a container: ``count`` of them (-1: all, 0: none), or those named by index or UUID.

    ``cdi``: they are asked for as CDI devices, of an engine that has no other way to them.
    """

    count: int = 0
    devices: tuple[str, ...] = ()
    cdi: bool = False

    @property
    def cdi_names(self) -> tuple[str, ...]:
        """Their names as CDI devices: "nvidia.com/gpu=all", or one each."""
        if self.devices:
            return tuple(f"{CDI_KIND}={one}" for one in self.devices)
        return (f"{CDI_KIND}=all",) if self.count < 0 else tuple(f"{CDI_KIND}={at}" for at in range(self.count))


NO_CARDS = Gpus()
ALL_CARDS = Gpus(-1)


@dataclass(frozen=True)
class Mount:
    """A folder of the engine's machine (absolute path) or a volume (name) inside a container."""

    source: str
    target: str
    read_only: bool = True

    @property
    def kind(self) -> str:
        """``bind`` for a path, ``volume`` for a name."""
        return "bind" if self.source.startswith("/") else "volume"


@dataclass(frozen=True)
class PublishedPort:
    """A port of the container, reached at ``host_port`` (0: a free one) of an address of the engine's machine."""

    container_port: int
    host_port: int = 0
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """Where HTTP is spoken to it, without a path; what listens on every address answers on loopback too."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.host_port}"


@dataclass(frozen=True)
class ContainerSpec:
    """A container. What is not said is locked: a read-only root file system, and /tmp in memory.

    No capability and no new privilege is ever given; that cannot be asked for.

    ``entrypoint`` None is the image's own, () none at all; ``arguments`` follow it. ``env`` is set; ``passed`` names
    variables whose values are taken from whoever starts it, so that a token is in no text; one that is not set there is
    not set in the container. ``tmpfs`` are pairs of a path and its mount options. ``shm`` is in GiB and ``memory`` in
    bytes, 0: docker's own; where there is a limit, no swap comes on top of it. ``network`` "" is docker's own, "none",
    "host" or "bridge" a mode, anything else a network's name, in which ``address`` is the container's own.
    ``healthcheck`` False: the image's is not run. ``stop_timeout`` is in seconds. An empty ``name``, ``user`` or
    ``workdir`` is left to docker or to the image.
    """

    image: str
    arguments: tuple[str, ...] = ()
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    env: tuple[tuple[str, str], ...] = ()
    passed: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    gpus: Gpus = NO_CARDS
    shm: int = 0
    memory: int = 0
    network: str = ""
    address: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    restart: str = "no"
    user: str = ""
    workdir: str = ""
    healthcheck: bool = True
    read_only: bool = True
    tmpfs: tuple[tuple[str, str], ...] = (TMPFS,)
    stop_timeout: int = STOP_TIMEOUT


def is_device(text: str) -> bool:
    """Whether docker takes it for a card: an index, that of a MIG instance ("0:1"), or a UUID."""
    return _DEVICE.fullmatch(text) is not None


def read_gpus(text: str) -> Gpus:
    """``--gpus`` as docker takes it: "all", "2", "device=0,1", "device=GPU-…"; a CDI device's name; or "none".

    Raises UsageError for anything else.
    """
    word = text.strip().strip('"')
    if word in ("none", "0"):
        return NO_CARDS
    if word == "all":
        return ALL_CARDS
    if _NUMBER.fullmatch(word):
        return Gpus(int(word))
    listed = tuple(part.strip() for part in word.removeprefix("device=").split(","))
    if all(part.startswith(f"{CDI_KIND}=") for part in listed):  # as podman and docker run --device take it
        named = tuple(part.removeprefix(f"{CDI_KIND}=") for part in listed)
        if named == ("all",):
            return Gpus(-1, cdi=True)
        if all(_DEVICE.fullmatch(part) for part in named):
            return Gpus(devices=named, cdi=True)
    if all(map(is_device, listed)) and not (len(listed) == 1 and word.isdecimal()):
        return Gpus(devices=listed)
    raise UsageError(f"--gpus {text!r} names no cards", do="--gpus all, --gpus 2, --gpus device=0,1, or --gpus none")


def read_memory(text: str) -> int:
    """``--memory-limit`` in bytes: "24g", "24GiB", "900m"; "none" is 0. Raises UsageError for anything else."""
    if text.strip().lower() == "none":
        return 0
    match = _MEMORY.fullmatch(text.strip().lower())
    found = int(match[1]) * (2**30 if match[2] == "g" else 2**20) if match else 0
    if found < LEAST_MEMORY:
        raise UsageError(f"--memory-limit {text!r} is no size of a server's memory", do="--memory-limit 24g, or none")
    return found


def check_name(name: str, what: str = "a container's name") -> str:
    """A name of a container or a volume, as docker allows it. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be {what}",
            cause="docker takes letters, digits, '.', '_' and '-', and no other sign first",
            do="choose another, such as cardstock",
        )
    return name


def check_port(port: int) -> int:
    """A port that can be asked for. Raises UsageError."""
    if not 1 <= port <= 65535:
        raise UsageError(f"{port} is not a port", do="--port 8000")
    return port
