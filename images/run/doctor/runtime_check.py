"""Whether the engine gives containers this machine's cards, and by which words. Pure."""

from __future__ import annotations

from images.cards import LocalMachine
from images.docker import NO_TOOLS, GpuTools, HostFacts, cdi_devices, way_to_cards
from images.run.doctor.facts import EngineFacts, Facts, Unknown
from images.run.doctor.finding import Finding

NAME = "GPU runtime"
# CDI is on without being asked for, and --gpus goes through it (moby pull requests 49963 and 50228).
CDI_BY_DEFAULT = (28, 2)
_BY_CDI = "--device nvidia.com/gpu=all"
_GENERATE = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml (package nvidia-container-toolkit-base)"


def check_runtime(facts: Facts) -> Finding:
    """How a container of the engine gets a card, or what to do so that it does."""
    engine, cards = facts.engine, facts.cards
    if not isinstance(cards, LocalMachine) or not cards.cards:
        return Finding(NAME, "ok", "not needed without a card")
    if isinstance(engine, Unknown):
        return Finding(NAME, "ok", "not checked: no engine of this machine answers")
    if not engine.local:
        return _elsewhere(engine)
    tools = NO_TOOLS if isinstance(facts.tools, Unknown) else facts.tools
    way = way_to_cards(engine.host, tools)
    if way == "nvidia" and tools.no_cgroups and not engine.host.rootless:
        told = "NVIDIA's runtime is told no-cgroups = true, which is for engines without root: containers of this one "
        do = "sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups=false --in-place, or --device by CDI"
        return Finding(NAME, "warning", f"{told}see no card (NVML error 999)", do)
    if way == "nvidia":
        return Finding(NAME, "ok", "NVIDIA's container runtime: docker run --gpus all")
    if way == "cdi":
        return Finding(NAME, "ok", f"CDI: {_how(engine.host, tools)}")
    what, do = _missing(engine.host, tools)
    return Finding(NAME, "wrong", what, do)


def _elsewhere(engine: EngineFacts) -> Finding:
    if not engine.host.desktop:
        return Finding(NAME, "ok", "not checked: no engine of this machine answers")
    return Finding(
        NAME,
        "wrong",
        "Docker Desktop's virtual machine has no NVIDIA card, so no container of it does",
        "use Docker Engine on this machine itself (docker context use default) with nvidia-container-toolkit",
    )


def _how(host: HostFacts, tools: GpuTools) -> str:
    if host.podman:
        return f"podman run {_BY_CDI}; where SELinux is on, with --security-opt label=disable"
    both = _version(host.version) >= CDI_BY_DEFAULT and "nvidia-cdi-hook" in tools.programs
    return f"docker run {f'--gpus all, or {_BY_CDI}' if both else f'{_BY_CDI} (not --gpus)'}"


def _missing(host: HostFacts, tools: GpuTools) -> tuple[str, str]:
    if host.podman:
        return "no CDI specification names the cards, and podman has no other way to them", (
            f"{_GENERATE}, then podman run {_BY_CDI}"
        )
    settings = "~/.config/docker/daemon.json" if host.rootless else "/etc/docker/daemon.json"
    again = "systemctl --user restart docker" if host.rootless else "restart docker"
    if tools.specifications and not cdi_devices(host, tools):
        told = f"{tools.specifications[0]} names the cards, but this engine does not read CDI"
        return told, f'write {{"features": {{"cdi": true}}}} into {settings} (Docker 25 or newer), {again}'
    if host.rootless:
        runtime = "nvidia" in host.runtimes or "nvidia-container-runtime-hook" in tools.programs
        told = "the engine is rootless, and NVIDIA's runtime may not set up cgroups for it" if runtime else _NOTHING
        way = "" if runtime else f"nvidia-ctk runtime configure --runtime=docker --config={settings}, "
        by_cdi = f'or CDI: {_GENERATE} and {{"features": {{"cdi": true}}}} in {settings}'
        no_cgroups = "sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups=true --in-place"
        return told, f"{way}{no_cgroups}, {again}; {by_cdi}"
    return _NOTHING, (
        "install nvidia-container-toolkit, then sudo nvidia-ctk runtime configure --runtime=docker, and restart docker"
    )


_NOTHING = "nothing gives containers a card"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split("-")[0].split(".") if part.isdigit())
