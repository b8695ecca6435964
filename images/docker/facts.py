"""What the engine is asked and what it answers, as plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from images.core import CheckFailed
from images.docker.refusals import refused_pull as refused_pull

TAIL_LINES = 40
_BUILDX_VERSION = re.compile(r"buildx v?(\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class ImageFacts:
    """What an engine knows of an image.

    ``size`` is in bytes, unpacked (an engine with the containerd store may count packed layers); ``layers`` are diff
    ids, base first; ``created`` is RFC 3339; ``tags`` and ``digests`` are full references.
    """

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    labels: Mapping[str, str]
    env: Mapping[str, str]
    user: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    size: int
    created: str
    architecture: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class HostFacts:
    """The machine that an engine runs on, as it says it.

    ``memory`` in bytes; ``runtimes`` are OCI runtimes by name ("runc", "nvidia"); ``cdi`` the folders that it reads CDI
    specifications from (none: it does not); ``devices`` the CDI devices that it found ("nvidia.com/gpu=all").
    ``kernel`` and ``name`` are those of the machine, or of the virtual machine that the engine runs in; ``podman`` and
    ``rootless`` what the engine is.
    """

    version: str
    system: str
    architecture: str
    root: str
    memory: int
    cores: int
    runtimes: tuple[str, ...]
    cdi: tuple[str, ...]
    devices: tuple[str, ...]
    kernel: str = ""
    name: str = ""
    podman: bool = False
    rootless: bool = False

    @property
    def desktop(self) -> bool:
        """Whether it is Docker Desktop, whose engine runs in a virtual machine."""
        return self.system.startswith("Docker Desktop")


@dataclass(frozen=True)
class Ran:
    """A container that ended: exit code and text."""

    code: int
    out: str
    err: str = field(repr=False, default="")


class ContainerFailed(CheckFailed):
    """A container ended with a code the caller did not expect, or did not end; the end of its log is the cause."""

    def __init__(self, what: str, ran: Ran, *, do: str = "") -> None:
        text = "\n".join([*ran.out.splitlines(), *ran.err.splitlines()][-TAIL_LINES:])
        super().__init__(what, cause=text.strip() or "it printed nothing", do=do)
        self.ran = ran


def facts_of(attributes: Mapping[str, Any]) -> ImageFacts:
    """Facts from the engine's answer to an image inspect."""
    config = attributes.get("Config") or {}
    return ImageFacts(
        id=attributes["Id"],
        tags=tuple(attributes.get("RepoTags") or ()),
        digests=tuple(attributes.get("RepoDigests") or ()),
        labels=dict(config.get("Labels") or {}),
        env=dict(pair.partition("=")[::2] for pair in config.get("Env") or ()),
        user=config.get("User") or "",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        size=int(attributes.get("Size") or 0),
        created=attributes.get("Created") or "",
        architecture=attributes.get("Architecture") or "",
        layers=tuple((attributes.get("RootFS") or {}).get("Layers") or ()),
    )


def host_of(info: Mapping[str, Any]) -> HostFacts:
    """Facts from the engine's answer to `docker info`; older engines leave out what they do not know."""
    return HostFacts(
        version=str(info.get("ServerVersion") or ""),
        system=str(info.get("OperatingSystem") or ""),
        architecture=str(info.get("Architecture") or ""),
        root=str(info.get("DockerRootDir") or ""),
        memory=int(info.get("MemTotal") or 0),
        cores=int(info.get("NCPU") or 0),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        cdi=tuple(info.get("CDISpecDirs") or ()),
        devices=tuple(str(device.get("ID")) for device in info.get("DiscoveredDevices") or ()),
        kernel=str(info.get("KernelVersion") or ""),
        name=str(info.get("Name") or ""),
        podman=bool(info.get("BuildahVersion")),  # podman's compat API alone says it (pkg/api/handlers/compat/info.go)
        rootless=any("rootless" in str(one) for one in info.get("SecurityOptions") or ()),
    )


def split_reference(reference: str) -> tuple[str, str]:
    """Repository and tag of ``repo[:tag]``; the colon of a registry's port is not a tag's."""
    head, colon, tail = reference.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (reference, "latest")


def parse_buildx(text: str) -> tuple[int, ...] | None:
    """The version in the output of ``docker buildx version``."""
    found = _BUILDX_VERSION.search(text)
    return tuple(map(int, found[1].split("."))) if found else None
