"""A cluster started, waited for, watched, mended and ended: Ray's containers on every host, the head's serves."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from images.core import CardstockError, CheckFailed, EngineUnreachable, NothingSelected, UsageError
from images.proof.smoke import Health, likely_cause, tail
from images.run.cluster.containers import ClusterContainers
from images.run.cluster.hosts import Host, Hosts
from images.run.cluster.nodes import Node
from images.run.cluster.status import read_status
from images.run.cluster.watch import Event, HostContainer, Watch, wrong_interface
from images.run.serve import Clock, died, steps

Say = Callable[[str], None]
# `ray status` starts a Python and imports Ray: seconds of a core each time it is asked.
PAUSE = 5.0
# Ray itself waits up to half a minute before it gives a silent host up.
LOOKS = 2


class Cluster:
    """The containers of hosts.yaml: ``containers`` by host's name; ``environment`` has what is passed to them."""

    def __init__(
        self,
        hosts: Hosts,
        nodes: Sequence[Node],
        containers: Mapping[str, ClusterContainers],
        environment: Mapping[str, str],
        say: Say,
        clock: Clock | None = None,
    ) -> None:
        self.hosts = hosts
        self.nodes = tuple(nodes)
        self.head = next(node for node in nodes if node.head)
        self.containers = containers
        self.environment = environment
        self.say = say
        self.clock = clock or Clock()
        self.watch = Watch(hosts)
        self._missed = 0
        self._restarts = 0

    # Starting

    def check(self) -> None:
        """See that every host can take part: image, network card, address, model. Raises with the host's name."""
        for node in self.nodes:
            with told_of(node.host):
                self._check(node)

    def _check(self, node: Node) -> None:
        host, own = node.host, self.containers[node.host.name]
        if own.engine.inspect(node.spec.image) is None:
            what = f"{host.name} does not have the image {node.spec.image}"
            raise NothingSelected(what, do="docker pull it there, or build it there with ./inv build")
        if there := own.find(node):
            raise UsageError(
                f"{host.name} has a container {node.spec.name} already ({there.status})",
                do="./inv cluster --stop first",
            )
        seen = own.look(node)
        if wrong := wrong_interface(host, self.hosts.interface_of(host), seen.interfaces):
            raise UsageError(wrong[0], do=wrong[1], where="hosts.yaml")
        if not seen.model:
            folder = self.hosts.folder_of(host)
            what = f"{host.name} has no model in {folder}: no config.json that its container may read"
            raise UsageError(what, do="put the same model there on every host, readable by all (chmod -R a+rX)")

    def start(self) -> None:
        """Make and start every container, the head's first."""
        for node in self.nodes:
            with told_of(node.host):
                self.containers[node.host.name].start(node, self.environment)
            self.say(f"{node.host.name}: {node.spec.name} started")

    @contextlib.contextmanager
    def or_remove(self) -> Iterator[None]:
        """Remove what was started if the block fails or is interrupted: half a cluster serves nobody."""
        try:
            yield
        except BaseException:
            self.remove()
            raise

    def remove(self) -> int:
        """End and remove every container of the cluster, the workers' first; how many."""
        return sum(self.containers[node.host.name].remove(node) for node in reversed(self.nodes))

    # Looking

    def look(self) -> list[Event]:
        """Ask Ray who is there; what has happened since the last look, told as it is found."""
        told = self.containers[self.head.host.name].ray_status(self.head)
        joined = read_status(told).joined(self.hosts.hosts) if told else frozenset()
        lost = {node.host.name: self._state(node) for node in self.nodes if node.host.name not in joined}
        anew = told is None or self._restarted()
        if anew and self.watch.there:
            self.say(f"the server on {self.head.host.name} has ended: every host has to join again")
        self.watch, events = self.watch.look(joined, lost, anew)
        for event in events:
            self.say(event.what)
            if event.do:
                self.say(f"  do: {event.do}")
        return events

    def _restarted(self) -> bool:
        """Whether the head's engine has started its container again since the last look."""
        found = self.containers[self.head.host.name].find(self.head)
        before, self._restarts = self._restarts, found.restarts if found else 0
        return self._restarts > before

    def _state(self, node: Node) -> HostContainer:
        own = self.containers[node.host.name]
        try:
            found = own.find(node)
            return HostContainer(found.status, found.exit_code, own.log(node)) if found else HostContainer("gone")
        except EngineUnreachable:
            return HostContainer("unreachable")

    def wait_joined(self, limit: float) -> float:
        """Wait until every host is in the cluster; seconds that it took.

        Raises CheckFailed after ``limit`` seconds, or when a container ends first: each missing host by name, told
        apart by whether it has ever joined, with the end of its log.
        """
        began = self.clock.now()
        while True:
            self.look()
            waited = self.clock.now() - began
            if self.watch.complete:
                return waited
            missing = [node for node in self.nodes if node.host.name not in self.watch.there]
            states = {node.host.name: self._state(node) for node in missing}
            if waited > limit or any(state.status in ("exited", "dead", "gone") for state in states.values()):
                raise self._incomplete(states, waited)
            self.clock.sleep(PAUSE)

    def _incomplete(self, states: Mapping[str, HostContainer], waited: float) -> CheckFailed:
        events = self.watch.never(states)
        lost = [name for name in states if name in self.watch.ever]
        told = [event.what for event in events] + [
            f"{name} dropped out; its container {states[name].told}" for name in lost
        ]
        logs = [f"last lines of {name}:\n{tail(state.log, 15)}" for name, state in states.items() if state.log.strip()]
        return CheckFailed(
            f"the cluster is not complete after {waited:.0f} s: {'; '.join(told)}",
            cause="\n".join(logs),
            do="; ".join(dict.fromkeys(event.do for event in events)) or "start it again",
        )

    def wait_healthy(self, limit: float) -> float:
        """Wait until the head serves; seconds that it took. Raises CheckFailed with its log's end and likely cause."""
        own, began = self.containers[self.head.host.name], self.clock.now()
        told = set(steps(own.log(self.head, 200)))  # a log goes on where the start before ended
        while True:
            found = own.find(self.head)
            if found is None:
                raise CheckFailed(f"{self.head.spec.name} is gone", cause="somebody else has removed it")
            log = own.log(self.head, 200)
            for line in [line for line in dict.fromkeys(steps(log)) if line not in told]:
                self.say(line)
                told.add(line)
            health, waited = Health.of(found.attributes), self.clock.now() - began
            if health.verdict:
                return waited
            if health.status in ("exited", "dead"):
                self.look()  # a host that was lost is what it ended of
                raise died(found, health, log, waited)
            if waited > limit:
                cause, do = likely_cause(health, log)
                what = f"the server on {self.head.host.name} does not answer after {waited:.0f} s"
                raise CheckFailed(what, cause=f"{cause}\n{tail(log)}", do=do)
            self.clock.sleep(2.0)

    def keep(self) -> None:
        """From now on every engine starts its container again when it ends."""
        for node in self.nodes:
            self.containers[node.host.name].keep(node)

    # Mending

    def watch_over(self, limit: float) -> None:
        """Look again and again, until interrupted; ``limit`` seconds is what a mending may take."""
        while True:
            self.step(limit)

    def step(self, limit: float) -> bool:
        """One look, and a pause; whether all was started anew because a host was missing twice running.

        All, because an engine that has lost a part of its model does not go on in any version of vLLM.
        """
        self.look()
        self._missed = 0 if self.watch.complete else self._missed + 1
        if self._missed < LOOKS:
            self.clock.sleep(PAUSE)
            return False
        self._missed = 0
        self.mend(limit)
        return True

    def mend(self, limit: float) -> float:
        """Start every container anew, the head's first, and wait until the server answers; seconds that it took."""
        began = self.clock.now()
        self.say(f"starting all hosts anew: {', '.join(self.lost()) or 'the server'} was lost")
        self.watch = Watch(self.hosts, self.watch.ever)
        for node in self.nodes:
            try:
                self.containers[node.host.name].restart(node)
            except CardstockError as error:
                self.say(f"{node.host.name}: {error}")
        self._patiently_joined(limit)
        self.wait_healthy(limit)
        return self.clock.now() - began

    def _patiently_joined(self, limit: float) -> None:
        """As `wait_joined`, but a container may end: its engine starts it again."""
        began = self.clock.now()
        while not self.watch.complete:
            self.look()
            if self.clock.now() - began > limit:
                missing = [node for node in self.nodes if node.host.name not in self.watch.there]
                raise self._incomplete({node.host.name: self._state(node) for node in missing}, limit)
            self.clock.sleep(PAUSE)

    def lost(self) -> list[str]:
        """Hosts that had joined and were not there at the last look."""
        return [host.name for host in self.hosts.hosts if host.name in self.watch.ever - self.watch.there]


@contextlib.contextmanager
def told_of(host: Host) -> Iterator[None]:
    """Put the host's name before an error that does not say it: one of its engine's."""
    try:
        yield
    except CardstockError as error:
        if host.name not in error.what:
            error.what = f"{host.name}: {error.what}"
        if re.search(r"could not select device driver|nvidia-container|unresolvable CDI", error.cause):
            error.do = f"install the NVIDIA container toolkit on {host.name}; ./inv doctor there says what is missing"
        raise


def engines_of(hosts: Hosts, connect: Callable[[Host], ClusterContainers]) -> dict[str, ClusterContainers]:
    """An engine for each host; hosts with the same endpoint share one. Raises what ``connect`` does, with the name."""
    made: dict[str, ClusterContainers] = {}
    for host in hosts.hosts:
        if host.engine not in made:
            try:
                made[host.engine] = connect(host)
            except EngineUnreachable as error:
                what = f"{host.name} cannot be reached: {error.what}"
                raise EngineUnreachable(what, cause=error.cause, do=error.do, where="hosts.yaml") from error
    return {host.name: made[host.engine] for host in hosts.hosts}
