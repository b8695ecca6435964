"""Start a server, wait until it is healthy, stop it: what may go wrong is told with its cause."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from images.core import CardstockError, CheckFailed, NoImageFits, NothingSelected, UsageError
from images.docker import STOP_TIMEOUT, Containers, ContainerSpec, ContainerState, no_card_given
from images.proof.smoke import Health, unhealthy_text
from images.run.serve.make import MODEL, SERVED

Say = Callable[[str], None]
# The image's entrypoint ends so where the image does not fit the cards or their driver.
PREFLIGHT = 4
ENDED = ("exited", "dead", "restarting")
# Seconds before the wait in which the container was started.
_BEFORE = 60.0
# 0, or by the SIGTERM that was sent; 137 is SIGKILL after the grace.
CLEAN = (0, 143)
# Lines of either server's log that tell how far it is; the rest is `docker logs`.
_STEPS = re.compile(
    r"preflight|Starting to load model|Loading (?:model )?weights took|Model loading took|Downloading|fetching |"
    r"KV cache size|# (?:GPU|CPU) blocks|Capturing (?:the model|CUDA graph)|[Cc]ompil(?:ing|ation) .* took|loaded in |"
    r"init engine .* took|Application startup complete"
)
_PREFIX = re.compile(r"^(?:\(\S+ pid=\d+\) )?(?:INFO|WARNING) \d\d-\d\d [\d:]+ (?:\[\S+\] )?")


@dataclass(frozen=True)
class Clock:
    """Time, for tests to replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def check_free(containers: Containers, spec: ContainerSpec, local: bool) -> None:
    """Raises UsageError where the name is in use, or the port is taken on this machine (``local``: the engine's)."""
    there = containers.find(spec.name)
    if there is not None:
        ours = SERVED in there.labels
        raise UsageError(
            f"there is a container called {spec.name} already ({there.status})",
            cause=f"it serves {there.labels.get(MODEL, '')} by {there.labels[SERVED]}" if ours else "",
            do=f"./inv serve --stop {spec.name}, or --name another" if ours else "--name another",
        )
    if local and not all(port_free(port.host, port.host_port) for port in spec.ports):
        raise port_taken(spec)


def port_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment."""
    with closing(socket.socket()) as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def port_taken(spec: ContainerSpec) -> UsageError:
    """The error of a port that something else has."""
    (port,) = spec.ports
    return UsageError(
        f"port {port.host_port} of {port.host} is in use, or not an address of this machine",
        do=f"--port {port.host_port + 1}, or stop what listens there (ss -ltnp 'sport = :{port.host_port}')",
    )


def start(containers: Containers, spec: ContainerSpec, environment: Mapping[str, str]) -> None:
    """Start it, with its restart policy from the first moment on: whoever waits for it may be killed.

    Raises UsageError for a port or a name that is taken, CardstockError for what the engine refuses.
    """
    try:
        containers.start(spec, environment)
    except CardstockError as error:
        if re.search(r"name .* is already in use", error.cause):
            raise UsageError(
                f"there is a container called {spec.name} already",
                cause="another ./inv serve was faster",
                do=f"./inv serve --stop {spec.name}, or --name another",
            ) from error
        if re.search(r"port is already allocated|address already in use", error.cause):
            raise port_taken(spec) from error
        if do := no_card_given(error.cause):
            raise CardstockError(error.what, cause=error.cause, do=do) from error
        raise


def wait(containers: Containers, spec: ContainerSpec, limit: float, say: Say, clock: Clock | None = None) -> float:
    """Wait until it is healthy, telling how far it is; seconds that it took.

    A server that ends while it starts is not started again for ever: it is removed, and its log is in the error:
    NoImageFits where the image said so itself, CheckFailed else. One that takes longer than ``limit`` seconds goes on.
    """
    clock = clock or Clock()
    began, moment, told = clock.now(), time.time(), set[str]()
    while True:
        found = containers.find(spec.name)
        if found is None:
            raise CheckFailed(f"the container {spec.name} is gone", cause="somebody else has removed it")
        log = containers.log(spec.name)
        for line in steps(log):
            if line not in told:
                say(line)
                told.add(line)
        health, waited = Health.of(found.attributes), clock.now() - began
        if found.restarts or health.status in ENDED:
            if found.restarts:  # it says nothing more of its first end, and may be at its second start
                code = containers.first_end(spec.name, moment - _BEFORE)
                health = replace(health, status="exited", exit_code=health.exit_code if code is None else code)
            containers.remove(spec.name)
            raise died(found, health, log, waited)
        if health.verdict:
            return waited
        if health.verdict is False or waited > limit:
            raise _late(spec, health, log, waited)
        clock.sleep(1.0)


def steps(log: str) -> list[str]:
    """The lines of a log that tell how far a server is, without their prefixes."""
    return [_PREFIX.sub("", line).strip()[:240] for line in log.splitlines() if _STEPS.search(line)]


def died(found: ContainerState, health: Health, log: str, waited: float) -> CardstockError:
    """The error of a server that ended while it started."""
    if health.exit_code == PREFLIGHT and "preflight: " in log:
        return refused_by_preflight(log)
    what, cause, do = unhealthy_text(health, log, waited)
    return CheckFailed(f"{found.name}: {what}", cause=cause, do=do)


def refused_by_preflight(log: str) -> NoImageFits:
    """What the image's preflight said: a line, then ``cause``, ``do``, ``or`` and ``where``, a fact each."""
    told = log.rpartition("preflight: ")[2].splitlines()
    facts: dict[str, list[str]] = {}
    for line in told[1:]:
        name, colon, text = line.strip().partition(": ")
        if colon and line.startswith("  "):
            facts.setdefault(name, []).append(text)
    return NoImageFits(
        f"preflight: {told[0]}",
        cause="; ".join(facts.get("cause", [])),
        do="\n  or: ".join([*facts.get("do", []), *facts.get("or", [])]),
        where="; ".join(facts.get("where", [])),
    )


def _late(spec: ContainerSpec, health: Health, log: str, waited: float) -> CheckFailed:
    what, cause, do = unhealthy_text(health, log, waited)
    return CheckFailed(
        f"{spec.name}: {what}",
        cause=cause,
        do=f"{do}; it goes on: ./inv serve --logs {spec.name}, ./inv serve --stop {spec.name}",
    )


@dataclass(frozen=True)
class Stopped:
    """How a server ended: its exit code, and whether that is a clean end."""

    code: int

    @property
    def clean(self) -> bool:
        """Whether it ended by itself when asked to."""
        return self.code in CLEAN


def ours(containers: Containers, name: str) -> ContainerState:
    """The container that `invoke serve` has started under this name.

    Raises NothingSelected where there is none, UsageError for a container of somebody else's.
    """
    found = containers.find(name)
    if found is None:
        names = ", ".join(sorted(one.name for one in containers.labelled(SERVED)))
        raise NothingSelected(f"no server is called {name}", do=f"those that are: {names or 'none'}")
    if SERVED not in found.labels:
        raise UsageError(f"{name} is not a server of ./inv serve", do=f"docker stop {name}, if it is yours")
    return found


def stop(containers: Containers, name: str, seconds: int = STOP_TIMEOUT) -> Stopped:
    """End it within the grace, else by force, and remove it. Raises as `ours` does."""
    ours(containers, name)
    ended = containers.stop(name, seconds)
    containers.remove(name)
    return Stopped(ended.exit_code if ended else 0)
