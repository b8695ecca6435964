"""Who is in the cluster: hosts that never joined told from those that dropped out, each with what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from images.run.cluster.hosts import Host, Hosts
from images.run.cluster.nodes import TOKEN


@dataclass(frozen=True)
class HostContainer:
    """A host's container as its engine tells it: "running", "exited" …, "gone"; "unreachable" without an engine."""

    status: str
    exit_code: int = 0
    log: str = ""

    @property
    def told(self) -> str:
        """In words."""
        ended = f"has ended with {self.exit_code}" if self.status in ("exited", "dead") else ""
        words = {"running": "runs", "gone": "is gone", "unreachable": "cannot be asked after: its engine is silent"}
        return ended or words.get(self.status, f"is {self.status}")


@dataclass(frozen=True)
class Event:
    """Something that happened to a host: ``kind`` is "joined", "dropped" or "back"."""

    kind: str
    host: str
    what: str
    do: str = ""


@dataclass(frozen=True)
class Watch:
    """What was seen until now: hosts that have ever joined, and those that were there at the last look."""

    hosts: Hosts
    ever: frozenset[str] = frozenset()
    there: frozenset[str] = field(default_factory=frozenset)

    @property
    def complete(self) -> bool:
        """Whether all were there at the last look."""
        return len(self.there) == len(self.hosts.hosts)

    def look(
        self, joined: frozenset[str], containers: Mapping[str, HostContainer], anew: bool = False
    ) -> tuple[Watch, list[Event]]:
        """The next state, and what happened since the last look; ``containers`` by host, of those that are not there.

        ``anew``: the head is silent or new, so that every host has to join again. One that still runs is not blamed.
        """
        events = [
            Event("joined" if host.name not in self.ever else "back", host.name, f"{host.name} {self._arrival(host)}")
            for host in self.hosts.hosts
            if host.name in joined - self.there
        ]
        lost = {host: containers.get(host.name, HostContainer("unreachable")) for host in self.hosts.hosts}
        events += [
            self._dropped(host, container)
            for host, container in lost.items()
            if host.name in self.there - joined and not (anew and container.status == "running")
        ]
        return replace(self, ever=self.ever | joined, there=joined), events

    def _arrival(self, host: Host) -> str:
        return "is back in the cluster" if host.name in self.ever else f"has joined with {_slots(host)}"

    def _dropped(self, host: Host, container: HostContainer) -> Event:
        what = f"{host.name} dropped out: it had joined, and Ray has lost it; its container {container.told}"
        return Event("dropped", host.name, what, _after_drop(host, container))

    def never(self, containers: Mapping[str, HostContainer]) -> list[Event]:
        """The hosts that have not joined at all, with the likely reason."""
        missing = [host for host in self.hosts.hosts if host.name not in self.ever]
        return [self._never(host, containers.get(host.name, HostContainer("unreachable"))) for host in missing]

    def _never(self, host: Host, container: HostContainer) -> Event:
        what = f"{host.name} never joined; its container {container.told}"
        return Event("never", host.name, what, likely(self.hosts, host, container))


def _slots(host: Host) -> str:
    return f"{len(host.devices)} cards" if len(host.devices) > 1 else "1 card" if host.devices else "no card"


def _after_drop(host: Host, container: HostContainer) -> str:
    if container.status == "unreachable":
        return f"see that {host.name} is on, and that {host.engine or 'its engine'} answers"
    if container.status == "running":
        return f"see that {host.address} answers from the head: a network that failed, or a machine that is too busy"
    if container.exit_code == 137:
        return f"it was killed: by somebody, or for want of memory (dmesg on {host.name})"
    return f"docker logs cardstock-{host.name} on {host.name} says why"


# The first whose pattern is in the log of a host that never joined speaks.
_REASONS = (
    (
        r"(?i)version mismatch|different version",
        "its Ray is another version than the head's: the same image on all hosts",
    ),
    (r"(?i)unauthenticated|invalid.{0,20}token|authentication", f"{TOKEN} is another one than the head's"),
    (r"(?i)no cuda gpus|nvidia-smi|could not select device driver", "its container sees no card: ./inv doctor there"),
    (r"(?i)no space left", "its disk or its shared memory is full"),
)


def likely(hosts: Hosts, host: Host, container: HostContainer) -> str:
    """Why a host did not join, as its container and its log tell it, and so what to do."""
    for pattern, do in _REASONS:
        if re.search(pattern, container.log):
            return do
    if container.status == "unreachable":
        return f"see that {host.name} is on, and that {host.engine or 'its engine'} answers"
    if host == hosts.head:
        return f"docker logs cardstock-{host.name} says why Ray's head does not start"
    head = f"{hosts.head.address}:{hosts.ray_port}"
    if container.status == "running" or re.search(r"(?i)failed to connect|unable to connect|GCS", container.log):
        return f"{head} must answer to {host.name}, and no firewall close a port between the hosts"
    return f"docker logs cardstock-{host.name} on {host.name} says why it ended"


def wrong_interface(host: Host, name: str, interfaces: Mapping[str, tuple[str, ...]]) -> tuple[str, str] | None:
    """What is wrong with the network card that is named for ``host``, and what to write; None if nothing is."""
    holder = next((card for card, addresses in interfaces.items() if host.address in addresses), "")
    if name not in interfaces:
        there = ", ".join(sorted(interfaces))
        what = f"{host.name} has no network card {name!r}; it has {there}"
        return what, f"interface: {holder}, which has {host.address}" if holder else "name one of them in hosts.yaml"
    if host.address not in interfaces[name]:
        has = ", ".join(interfaces[name]) or "no address"
        what = f"{name} of {host.name} does not have the address {host.address}, but {has}"
        return what, f"interface: {holder}, which has it" if holder else "mend the address in hosts.yaml"
    return None
