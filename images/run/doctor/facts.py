"""What the doctor looks at: facts of a machine, gathered elsewhere, each of which may be missing with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from images.cards import LocalMachine
from images.docker import HostFacts


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be had: what happened, the likely cause, what to do."""

    what: str
    cause: str = ""
    do: str = ""


@dataclass(frozen=True)
class EngineFacts:
    """The engine that would be used. ``free`` bytes on its disk, None where that is another machine's."""

    endpoint: str
    embedded: bool
    host: HostFacts
    buildx: tuple[int, ...] | None
    free: int | None

    @property
    def local(self) -> bool:
        """Whether it runs on this machine, and so sees its cards."""
        return self.endpoint.startswith(("unix://", "npipe://"))


@dataclass(frozen=True)
class GpuTools:
    """What gives containers a card: NVIDIA's programs found on this machine, and CDI specifications of its cards."""

    programs: tuple[str, ...]
    specifications: tuple[str, ...]


@dataclass(frozen=True)
class ThisHost:
    """The machine itself: processor ("x86_64"), bytes of memory, where Cardstock keeps things and bytes free there.

    ``gpus`` counts NVIDIA's display controllers on the PCI bus, with or without a driver.
    """

    machine: str
    memory: int
    home: Path
    free: int
    gpus: int = 0


@dataclass(frozen=True)
class Authorities:
    """The CA bundle that builds get, and how many certificates it holds; ``missing`` are files named but not there.

    ``proxy`` is the variable that names a proxy, "" without one.
    """

    bundle: Path | None
    certificates: int
    missing: tuple[str, ...]
    proxy: str


@dataclass(frozen=True)
class RegistryReach:
    """A registry, and the HTTP status it answered with, or why it did not."""

    host: str
    answer: int | Unknown


@dataclass(frozen=True)
class Facts:
    """Everything that was asked. ``embeddable`` is "" where an embedded engine could be started, else why not."""

    this_host: ThisHost
    cards: LocalMachine | Unknown
    engine: EngineFacts | Unknown
    embeddable: str
    tools: GpuTools | Unknown
    authorities: Authorities | Unknown
    index: str | Unknown
    registries: tuple[RegistryReach, ...]
