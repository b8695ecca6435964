"""What the facts mean: one finding a line, each ok, a warning or wrong, with what to do. Pure."""

from __future__ import annotations

from collections.abc import Callable

from images.cards import LocalMachine
from images.core import human_bytes
from images.matrix import FIRST_IMAGE, Matrix
from images.run.doctor.card_checks import check_cards, check_driver
from images.run.doctor.facts import EngineFacts, Facts, Unknown
from images.run.doctor.finding import Finding, unknown
from images.run.doctor.runtime_check import check_runtime

GB = 1000**3
# Bytes. An image is at most 7.5 GB unpacked; what a build needs is what it asks for itself.
IMAGE_DISK = 8 * GB
BUILD_DISK = max(FIRST_IMAGE.values())
# Bytes. A compiler process of xformers takes 3 GB (images/kernels/inside/costs.py), and the canary's torch 2 GB.
LEAST_MEMORY = 4 * GB
GOOD_MEMORY = 8 * GB
# BuildKit through bake with named contexts of targets; tried with this version.
BUILDX = (0, 13)
ANSWERS = (200, 401)


def check_facts(facts: Facts, matrix: Matrix, *, builds: bool = True) -> tuple[Finding, ...]:
    """The finding of every check, in the order in which problems must be solved.

    Without ``builds`` nothing is built here, and what only a build needs is not looked at: buildx, its disk and memory,
    the index.
    """
    building: tuple[Callable[[Facts], Finding], ...] = (_engine, _buildx, check_runtime, _disk, _memory, _index)
    rest = building if builds else (_engine, check_runtime, _disk_to_pull)
    return (
        _processor(facts),
        *check_cards(facts),
        check_driver(facts, matrix),
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


def _engine(facts: Facts) -> Finding:
    engine = facts.engine
    if isinstance(engine, EngineFacts):
        whose = "the embedded one" if engine.embedded else engine.host.system
        text = f"Docker {engine.host.version}, {whose}, at {engine.endpoint}"
        if not engine.local and isinstance(facts.cards, LocalMachine) and facts.cards.cards:
            return Finding("engine", "warning", f"{text}: {_elsewhere(engine)}", _nearer(engine))
        return Finding("engine", "ok", text)
    if not engine.what.startswith("no Docker engine answers"):
        return unknown("engine", "wrong", engine, "see that it runs (docker info)")
    if facts.embeddable:
        do = "start your Docker engine, set DOCKER_HOST, or run as root on Debian 12 or later, where one comes along"
        return Finding("engine", "wrong", facts.embeddable, do)
    return Finding("engine", "ok", "none answers; a build or a pull brings one of its own along (./inv engine --start)")


def _elsewhere(engine: EngineFacts) -> str:
    if engine.host.desktop or engine.endpoint.startswith(("unix://", "npipe://")):
        return "it runs in a virtual machine, which does not see these cards"
    return "another machine, which does not see these cards"


def _nearer(engine: EngineFacts) -> str:
    if engine.host.desktop or engine.endpoint.startswith(("unix://", "npipe://")):
        return "use the engine of this machine: docker context use default, or install Docker Engine beside it"
    return "unset DOCKER_HOST and DOCKER_CONTEXT, or docker context use default"


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


def _disk_to_pull(facts: Facts) -> Finding:
    return _disk(facts, needed=IMAGE_DISK)


def _disk(facts: Facts, needed: int = BUILD_DISK) -> Finding:
    engine = facts.engine
    if isinstance(engine, EngineFacts):
        if engine.free is None:
            where = "in its virtual machine" if engine.host.desktop else "on another machine"
            return Finding("disk", "ok", f"not known: the engine's disk is {where} (docker system df)")
        free, where = engine.free, engine.host.root
    else:
        free, where = facts.this_host.free, str(facts.this_host.home)
    text = f"{human_bytes(free)} free below {where}"
    if free < IMAGE_DISK:
        return Finding(
            "disk", "wrong", f"{text}: too little for one image", "free some: docker system df, ./inv engine --prune"
        )
    if free < needed:
        do = f"to build, free {human_bytes(needed - free)} more (./inv engine --prune); to pull, nothing"
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
        return unknown(
            "package index", "warning", facts.index, "set what pip needs: PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY"
        )
    return Finding("package index", "ok", "answers, with pip's settings")


def _registries(facts: Facts) -> list[Finding]:
    out = []
    for reach in facts.registries:
        name = f"registry {reach.host}"
        if isinstance(reach.answer, Unknown):
            out.append(
                unknown(name, "warning", reach.answer, "nothing can be pulled from it; bases are made of packages")
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
        return unknown(name, "wrong", authorities, "correct the environment or site.yaml")
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
