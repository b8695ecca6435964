"""What the facts mean: one finding a line, each ok, a warning or wrong, with what to do. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from images.build import FIRST_IMAGE
from images.cards import LocalCard, LocalMachine
from images.core import human_bytes
from images.matrix import Matrix, parse_driver
from images.run.doctor.facts import EngineFacts, Facts, Unknown

GB = 1000**3
# Bytes. An image is at most 7.5 GB unpacked; what a build needs is what it asks for itself.
IMAGE_DISK = 8 * GB
BUILD_DISK = max(FIRST_IMAGE.values())
# Bytes. A compiler process of xformers takes 3 GB (images/kernels/inside/costs.py), and the canary's torch 2 GB.
LEAST_MEMORY = 4 * GB
GOOD_MEMORY = 8 * GB
# BuildKit through bake with named contexts of targets; tried with this version.
BUILDX = (0, 13)
# CDI is on without being asked for, and --gpus goes through it (moby pull requests 49963 and 50228).
CDI_BY_DEFAULT = (28, 2)
ANSWERS = (200, 401)
CheckState = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and for what is not ok what to do."""

    name: str
    state: CheckState
    what: str
    do: str = ""


def check_facts(facts: Facts, matrix: Matrix) -> tuple[Finding, ...]:
    """The finding of every check, in the order in which problems must be solved."""
    single: tuple[Callable[[Facts], Finding], ...] = (_processor, _cards)
    rest: tuple[Callable[[Facts], Finding], ...] = (_engine, _buildx, _runtime, _disk, _memory, _index)
    return (
        *(check(facts) for check in single),
        _driver(facts, matrix),
        *(check(facts) for check in rest),
        *_registries(facts),
        _authorities(facts),
    )


def _processor(facts: Facts) -> Finding:
    if facts.this_host.machine in ("x86_64", "AMD64"):
        return Finding("machine", "ok", facts.this_host.machine)
    return Finding(
        "machine", "wrong", f"{facts.this_host.machine}: images here are for x86-64", "use an x86-64 machine"
    )


def _cards(facts: Facts) -> Finding:
    if isinstance(facts.cards, Unknown):
        return _unknown(
            "cards", "wrong", facts.cards, "see whether nvidia-smi answers; restart the machine if it hangs"
        )
    if not facts.cards.cards:
        return Finding("cards", "ok", f"none: {facts.cards.why}")
    listed = ", ".join(_card(card) for card in facts.cards.cards)
    if unsliced := [card for card in facts.cards.cards if card.mig and not card.slices]:
        return Finding(
            "cards",
            "warning",
            f"{listed}: MIG is on, and {unsliced[0].name} has no instance",
            "make one (nvidia-smi mig -cgi 0 -C), or switch MIG off (nvidia-smi -mig 0)",
        )
    return Finding("cards", "ok", listed)


def _card(card: LocalCard) -> str:
    parts = f", MIG: {len(card.slices)} instances" if card.mig else ""
    memory = f", {human_bytes(card.memory)}" if card.memory else ""
    return f"{card.name} ({card.arch}{memory}{parts})"


def _driver(facts: Facts, matrix: Matrix) -> Finding:
    machine = facts.cards
    if isinstance(machine, Unknown):
        return Finding("driver", "wrong", "not known", "see the line above")
    if not machine.driver:
        if facts.this_host.gpus:
            text = f"none serves the {facts.this_host.gpus} NVIDIA card(s) on the PCI bus: {machine.why}"
            return Finding("driver", "wrong", text, "install NVIDIA's driver (or load it: restart), then nvidia-smi")
        return Finding("driver", "ok", "none, and no card on the PCI bus: not needed to build")
    text = f"{machine.driver}, CUDA {machine.cuda}" if machine.cuda else machine.driver
    oldest = min(parse_driver(toolkit.floor) for toolkit in matrix.toolkits.values())
    if parse_driver(machine.driver) < oldest:
        return Finding("driver", "wrong", f"{text}: older than every stack's", f"install driver {oldest} or newer")
    return Finding("driver", "ok", text)


def _engine(facts: Facts) -> Finding:
    engine = facts.engine
    if isinstance(engine, EngineFacts):
        whose = "the embedded one" if engine.embedded else engine.host.system
        text = f"Docker {engine.host.version}, {whose}, at {engine.endpoint}"
        if not engine.local and isinstance(facts.cards, LocalMachine) and facts.cards.cards:
            return Finding(
                "engine", "warning", f"{text}: another machine, which does not see these cards", "unset DOCKER_HOST"
            )
        return Finding("engine", "ok", text)
    if not engine.what.startswith("no Docker engine answers"):
        return _unknown("engine", "wrong", engine, "see that it runs (docker info)")
    if facts.embeddable:
        do = "start your Docker engine, set DOCKER_HOST, or run as root on Debian 12 or later, where one comes along"
        return Finding("engine", "wrong", facts.embeddable, do)
    return Finding("engine", "ok", "none answers; ./inv build brings one of its own along (./inv engine --start)")


def _buildx(facts: Facts) -> Finding:
    engine = facts.engine
    if isinstance(engine, Unknown):
        return Finding("buildx", "ok", "not checked: no engine answers")
    if engine.buildx is None:
        if not facts.embeddable:
            return Finding("buildx", "ok", "not there; ./inv build fetches it for itself")
        return Finding("buildx", "wrong", "not there", "install Docker's buildx plug-in (docker-buildx-plugin)")
    version = ".".join(map(str, engine.buildx))
    if engine.buildx < BUILDX:
        return Finding(
            "buildx", "warning", f"{version}: older than any tried", f"take {BUILDX[0]}.{BUILDX[1]} or newer"
        )
    return Finding("buildx", "ok", version)


def _runtime(facts: Facts) -> Finding:
    name, engine, cards = "GPU runtime", facts.engine, facts.cards
    if isinstance(cards, Unknown) or not cards.cards:
        return Finding(name, "ok", "not needed without a card")
    if isinstance(engine, Unknown) or not engine.local:
        return Finding(name, "ok", "not checked: no engine of this machine answers")
    programs, specified = (
        ((), ()) if isinstance(facts.tools, Unknown) else (facts.tools.programs, facts.tools.specifications)
    )
    if "nvidia" in engine.host.runtimes or "nvidia-container-runtime-hook" in programs:
        return Finding(name, "ok", "NVIDIA's container runtime: docker run --gpus all")
    devices = [one for one in engine.host.devices if one.startswith("nvidia.com/gpu")] or specified
    if devices and engine.host.cdi:
        newer = _version(engine.host.version) >= CDI_BY_DEFAULT and "nvidia-cdi-hook" in programs
        how = "--gpus all, or --device nvidia.com/gpu=all" if newer else "--device nvidia.com/gpu=all (not --gpus)"
        return Finding(name, "ok", f"CDI: docker run {how}")
    if devices:
        return Finding(
            name,
            "wrong",
            f"{devices[0]} names the cards, but this engine does not read CDI",
            'write {"features": {"cdi": true}} into /etc/docker/daemon.json (Docker 25 or newer), restart docker',
        )
    return Finding(
        name,
        "wrong",
        "nothing gives containers a card",
        "install nvidia-container-toolkit, then sudo nvidia-ctk runtime configure --runtime=docker, and restart docker",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split("-")[0].split(".") if part.isdigit())


def _disk(facts: Facts) -> Finding:
    engine = facts.engine
    if isinstance(engine, EngineFacts):
        if engine.free is None:
            return Finding("disk", "ok", "not known: the engine's disk is on another machine")
        free, where = engine.free, engine.host.root
    else:
        free, where = facts.this_host.free, str(facts.this_host.home)
    text = f"{human_bytes(free)} free below {where}"
    if free < IMAGE_DISK:
        return Finding(
            "disk", "wrong", f"{text}: too little for one image", "free some: docker system df, ./inv engine --prune"
        )
    if free < BUILD_DISK:
        do = f"to build, free {human_bytes(BUILD_DISK - free)} more (./inv engine --prune); to pull, nothing"
        return Finding("disk", "warning", f"{text}: enough to pull an image, too little to build one", do)
    return Finding("disk", "ok", text)


def _memory(facts: Facts) -> Finding:
    engine = facts.engine
    memory = engine.host.memory if isinstance(engine, EngineFacts) and engine.host.memory else facts.this_host.memory
    text = human_bytes(memory)
    if memory < LEAST_MEMORY:
        return Finding(
            "memory", "wrong", f"{text}: too little to prove an image", f"give it {human_bytes(LEAST_MEMORY)} or more"
        )
    if memory < GOOD_MEMORY:
        return Finding(
            "memory",
            "warning",
            f"{text}: kernels are compiled one object at a time",
            "take kernel wheels from a registry",
        )
    return Finding("memory", "ok", text)


def _index(facts: Facts) -> Finding:
    if isinstance(facts.index, Unknown):
        return _unknown(
            "package index", "warning", facts.index, "set what pip needs: PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY"
        )
    return Finding("package index", "ok", "answers, with pip's settings")


def _registries(facts: Facts) -> list[Finding]:
    out = []
    for reach in facts.registries:
        name = f"registry {reach.host}"
        if isinstance(reach.answer, Unknown):
            out.append(
                _unknown(name, "warning", reach.answer, "nothing can be pulled from it; bases are made of packages")
            )
        elif reach.answer in ANSWERS:
            out.append(
                Finding(name, "ok", "answers" if reach.answer == 200 else "answers; some repositories need a login")
            )
        else:
            out.append(
                Finding(
                    name,
                    "warning",
                    f"HTTP {reach.answer}: this does not look like a registry",
                    "correct its name; see what the proxy says",
                )
            )
    return out


def _authorities(facts: Facts) -> Finding:
    authorities, name = facts.authorities, "proxy CA"
    if isinstance(authorities, Unknown):
        return _unknown(name, "wrong", authorities, "correct the environment or site.yaml")
    if authorities.missing:
        return Finding(
            name, "wrong", f"no such file: {', '.join(authorities.missing)}", "correct or unset the variable"
        )
    through = f"; a proxy is set ({authorities.proxy})" if authorities.proxy else ""
    if authorities.bundle is None:
        return Finding(
            name, "warning", f"no CA bundle on this host{through}", "install ca-certificates, or set CARDSTOCK_CA"
        )
    if not authorities.certificates:
        return Finding(
            name,
            "wrong",
            f"{authorities.bundle} holds no certificate",
            "name a PEM file: CARDSTOCK_CA=/path/to/bundle.pem",
        )
    return Finding(
        name, "ok", f"{authorities.bundle}, {authorities.certificates} authorities: builds get it as a secret{through}"
    )


def _unknown(name: str, state: CheckState, fact: Unknown, do: str) -> Finding:
    return Finding(name, state, f"{fact.what}: {fact.cause}" if fact.cause else fact.what, fact.do or do)
