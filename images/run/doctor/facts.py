"""What the doctor looks at: facts of a machine, gathered elsewhere, each of which may be missing with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from images.cards import LocalMachine
from images.docker import GpuTools, HostFacts


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be had: what happened, the likely cause, what to do."""

    what: str
    cause: str = ""
    do: str = ""


@dataclass(frozen=True)
class EngineFacts:
    """The engine that would be used. ``free`` bytes on its disk, None where that is another machine's.

    ``local``: it runs on this machine, and so sees its cards; one in a virtual machine of this machine's does not.
    """

    endpoint: str
    embedded: bool
    host: HostFacts
    buildx: tuple[int, ...] | None
    free: int | None
    local: bool = True


@dataclass(frozen=True)
class ThisHost:
    """The machine itself: processor ("x86_64"), bytes of memory, where Cardstock keeps things and bytes free there.

    ``gpus`` counts NVIDIA's display controllers on the PCI bus, with or without a driver, ``switches`` its NVSwitches;
    ``fabric_manager``: the program that sets those up runs. ``wsl``: this is WSL2, whose card is Windows' own.
    """

    machine: str
    memory: int
    home: Path
    free: int
    gpus: int = 0
    switches: int = 0
    fabric_manager: bool = False
    wsl: bool = False


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
