"""A server as one value: image, arguments, environment, mounts, port, cards, and how it is kept running. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from images.core import UsageError
from images.docker.facts import Mount

# What the image's server listens on, inside.
PORT = 8000
MODELS = "/models"
CACHE = "/cache"
CACHE_VOLUME = "cardstock-cache"
# Label of every container that `invoke serve` has started: the variant's id.
SERVED = "dev.cardstock.serve"
# The root file system is read-only; Ray and Python's multiprocessing keep sockets below /tmp.
TMPFS = ("/tmp", "rw,exec,nosuid,nodev,mode=1777")  # noqa: S108  (a path in the container)
RESTART = ("unless-stopped", "on-failure", "no")
# docker's own rule for names of containers.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_DEVICE = re.compile(r"\d+(:\d+)?|(GPU|MIG)-[0-9a-zA-Z/-]+")


@dataclass(frozen=True)
class Gpus:
    """The cards of a container: ``count`` of them (-1: all, 0: none), or those named by index or UUID."""

    count: int = 0
    devices: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """What follows ``--gpus``; docker reads it as CSV, so several devices are quoted once more."""
        if self.devices:
            listed = "device=" + ",".join(self.devices)
            return f'"{listed}"' if len(self.devices) > 1 else listed
        return "all" if self.count < 0 else str(self.count)


@dataclass(frozen=True)
class ContainerSpec:
    """A container that serves a model.

    ``arguments`` follow the image's name; ``env`` is set; ``passed`` names variables that are taken from whoever starts
    it, so that a token is in no text. ``shm`` is in GiB, 0: docker's own 64 MB. ``model`` is the API's name of it.
    """

    name: str
    image: str
    model: str
    arguments: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    passed: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    gpus: Gpus | None = None
    shm: int = 0
    host: str = "127.0.0.1"
    port: int = PORT
    restart: str = "unless-stopped"
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        """Where the server answers, without a path; one that listens on every address answers on loopback too."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


NO_CARDS = Gpus()


def read_gpus(text: str) -> Gpus:
    """``--gpus`` as docker takes it: "all", "2", "device=0,1", "device=GPU-…"; or "none".

    Raises UsageError for anything else.
    """
    word = text.strip().strip('"')
    if word in ("none", "0"):
        return NO_CARDS
    if word == "all":
        return Gpus(-1)
    if word.isdigit():
        return Gpus(int(word))
    listed = tuple(part.strip() for part in word.removeprefix("device=").split(","))
    if all(_DEVICE.fullmatch(part) for part in listed):
        return Gpus(devices=listed)
    raise UsageError(f"--gpus {text!r} names no cards", do="--gpus all, --gpus 2, --gpus device=0,1, or --gpus none")


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
