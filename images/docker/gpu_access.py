"""How an engine gives containers their cards: by NVIDIA's runtime (``--gpus``), or by CDI (``--device``).

Podman, rootless engines and hosts without NVIDIA's hook have CDI alone: a specification in /etc/cdi or /var/run/cdi
names the devices. Docker reads those since 25 where it is told to, and by itself since 28.2; podman always does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from images.docker.container_spec import CDI_KIND, NO_CARDS, ContainerSpec, Gpus
from images.docker.facts import HostFacts

CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
# The first makes --gpus work; with the second, newer engines do the same through CDI (moby pull request 50228).
PROGRAMS = ("nvidia-container-runtime-hook", "nvidia-cdi-hook", "nvidia-ctk")
# Bytes of a specification that are looked at; one of eight cards cut by MIG has 100 kB.
MOST = 4_000_000

Way = Literal["nvidia", "cdi", ""]


@dataclass(frozen=True)
class GpuTools:
    """What gives containers a card: NVIDIA's programs found on this machine, and CDI specifications of its cards.

    ``no_cgroups``: NVIDIA's runtime is told to leave cgroups alone, which a rootless engine needs.
    """

    programs: tuple[str, ...] = ()
    specifications: tuple[str, ...] = ()
    no_cgroups: bool = False


NO_TOOLS = GpuTools()
# Settings of NVIDIA's runtime, in XDG_CONFIG_HOME or in /etc.
_BELOW = Path("nvidia-container-runtime/config.toml")


def gpu_tools(folders: Sequence[Path] = CDI_FOLDERS, settings: Path | None = None) -> GpuTools:
    """NVIDIA's programs on PATH, and the CDI specifications that name NVIDIA's cards."""
    own = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / _BELOW
    places = (own, Path("/etc") / _BELOW) if settings is None else (settings,)
    files = [path for folder in folders if folder.is_dir() for path in _listed(folder)]
    named = [str(path) for path in files if path.suffix in (".yaml", ".yml", ".json") and CDI_KIND in _text(path)]
    lines = [line.replace(" ", "") for place in places for line in _text(place).splitlines()]
    return GpuTools(tuple(name for name in PROGRAMS if shutil.which(name)), tuple(named), "no-cgroups=true" in lines)


def cdi_folders(host: HostFacts) -> tuple[Path, ...]:
    """Where an engine of this machine looks for CDI specifications; podman and silent engines: the usual places."""
    return tuple(map(Path, host.cdi)) or CDI_FOLDERS


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    """The beginning of a regular file; "" for what cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as handle:
            return handle.read(MOST).decode("utf-8", "replace")
    except OSError:
        return ""


def cdi_devices(host: HostFacts, tools: GpuTools = NO_TOOLS) -> tuple[str, ...]:
    """The CDI devices of NVIDIA's that an engine tells of, or else the specifications on its machine that it reads."""
    if told := tuple(name for name in host.devices if name.startswith(f"{CDI_KIND}=")):
        return told
    return tools.specifications if host.podman or host.cdi else ()


def way_to_cards(host: HostFacts, tools: GpuTools = NO_TOOLS) -> Way:
    """How ``host`` gives containers cards; "" where nothing does. ``tools`` are those of the engine's own machine."""
    runtime = "nvidia" in host.runtimes or PROGRAMS[0] in tools.programs
    devices = cdi_devices(host, tools)
    if host.podman or (host.rootless and not tools.no_cgroups):
        return "cdi" if devices else ""
    if runtime:
        return "nvidia"
    return "cdi" if devices else ""


def by_way(gpus: Gpus, way: Way) -> Gpus:
    """The same cards, asked for in the way of the engine that gives them; who said CDI gets it."""
    return gpus if gpus == NO_CARDS or way != "cdi" else replace(gpus, cdi=True)


def spec_by_way(spec: ContainerSpec, way: Way) -> ContainerSpec:
    """The same container for an engine that gives cards in this way."""
    return replace(spec, gpus=by_way(spec.gpus, way))
