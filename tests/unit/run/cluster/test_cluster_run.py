"""A cluster's course against hosts that are played: waited for, told apart, mended."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from images.core.errors import (
    CardstockError,
    CheckFailed,
    EngineUnreachable,
    NoImageFits,
    NothingSelected,
    UsageError,
)
from images.docker.containers import ContainerState
from images.run.cluster.containers import ClusterContainers, Seen
from images.run.cluster.hosts import Host, parse_hosts
from images.run.cluster.nodes import Node, make_nodes, on_cpus
from images.run.cluster.run import Cluster, engines_of, told_of
from images.run.serve.start import Clock
from tests.helpers.clusters import CARDS, CPUS
from tests.helpers.fits import model

HOSTS = parse_hosts(CPUS)
NODES = make_nodes(HOSTS, on_cpus(HOSTS, model("7b"), HOSTS.variant, "repo/image:cpu"))
HEALTHY = {"Status": "running", "Health": {"Status": "healthy"}}
STARTING = {"Status": "running", "Health": {"Status": "starting"}}
KILLED = {"Status": "exited", "ExitCode": 137}


class Stage(ClusterContainers):
    """Two hosts whose containers are what the test says; a restart plays ``after`` it."""

    def __init__(self, states: Mapping[str, dict[str, Any]], joined: list[set[str]]) -> None:
        self.engine: Any = SimpleNamespace(inspect=lambda _: object())
        self.states = dict(states)
        self.joined = joined
        self.logs: dict[str, str] = {}
        self.done: list[str] = []
        self.after: dict[str, Any] = {}
        self.seen = Seen({"lo": ("127.0.0.1",), "eth0": ("10.78.0.11", "10.78.0.12")}, model=True)
        self.there = False

    def find(self, node: Node) -> ContainerState | None:
        state = self.states.get(node.host.name)
        return ContainerState(node.spec.name, {"State": state}) if state else None

    def log(self, node: Node, lines: int = 60) -> str:
        return self.logs.get(node.host.name, "")

    def look(self, node: Node) -> Seen:
        return self.seen

    def start(self, node: Node, environment: Mapping[str, str]) -> None:
        self.done.append(f"start {node.host.name}")

    def restart(self, node: Node) -> None:
        self.done.append(f"restart {node.host.name}")
        self.states[node.host.name] = HEALTHY if node.head else {"Status": "running"}

    def remove(self, node: Node) -> bool:
        self.done.append(f"remove {node.host.name}")
        return True

    def ray_status(self, node: Node) -> str | None:
        names = self.joined.pop(0) if len(self.joined) > 1 else self.joined[0]
        usage = "".join(f" 0.0/1.0 host-{name}\n" for name in sorted(names))
        nodes = "".join(f" 1 node_{name}\n" for name in sorted(names))
        return f"Node status\n---\nActive:\n{nodes}Pending:\n\nResources\n---\nTotal Usage:\n{usage}\n"


def _cluster(stage: Stage, said: list[str]) -> Cluster:
    seconds = iter(range(0, 100_000, 10))
    clock = Clock(now=lambda: float(next(seconds)), sleep=lambda _: None)
    return Cluster(HOSTS, NODES, {"box1": stage, "box2": stage}, {}, said.append, clock)


RUNNING: dict[str, dict[str, Any]] = {"box1": STARTING, "box2": {"Status": "running"}}


def test_every_host_is_told_as_it_joins() -> None:
    said: list[str] = []
    cluster = _cluster(Stage(RUNNING, [set(), {"box1"}, {"box1", "box2"}]), said)
    cluster.wait_joined(600)
    assert [line.split(" with")[0] for line in said] == ["box1 has joined", "box2 has joined"]


def test_a_host_that_never_joins_is_named_with_its_log_and_what_to_do() -> None:
    stage = Stage(RUNNING, [{"box1"}])
    stage.logs["box2"] = "Failed to connect to GCS at address 10.78.0.11:6379 within 5 seconds."
    with pytest.raises(CheckFailed) as caught:
        _cluster(stage, []).wait_joined(100)
    assert "box2 never joined; its container runs" in caught.value.what
    assert "within 5 seconds" in caught.value.cause
    assert "10.78.0.11:6379 must answer to box2" in caught.value.do


def test_a_container_that_ends_is_not_waited_for() -> None:
    stage = Stage({"box1": STARTING, "box2": {"Status": "exited", "ExitCode": 1}}, [{"box1"}])
    stage.logs["box2"] = "RuntimeError: Version mismatch"
    with pytest.raises(CheckFailed) as caught:
        _cluster(stage, []).wait_joined(10_000)
    assert "never joined; its container has ended with 1" in caught.value.what
    assert "the same image on all hosts" in caught.value.do


def test_one_that_joined_and_went_before_all_were_there_is_not_called_never_joined() -> None:
    stage = Stage({"box1": STARTING, "box2": KILLED}, [{"box2"}, {"box1"}])
    stage.states["box2"] = {"Status": "running"}
    cluster = _cluster(stage, [])
    cluster.look()
    stage.states["box2"] = KILLED
    with pytest.raises(CheckFailed) as caught:
        cluster.wait_joined(600)
    assert "box2 dropped out; its container has ended with 137" in caught.value.what
    assert "never" not in caught.value.what


def test_a_lost_host_is_named_and_all_are_started_anew() -> None:
    said: list[str] = []
    both = {"box1", "box2"}
    stage = Stage({"box1": HEALTHY, "box2": {"Status": "running"}}, [both, {"box1"}, {"box1"}, both])
    cluster = _cluster(stage, said)
    assert not cluster.step(600)
    stage.states["box2"] = KILLED
    assert not cluster.step(600)
    assert any("box2 dropped out" in line and "ended with 137" in line for line in said)
    assert stage.done == []
    assert cluster.step(600)
    assert stage.done == ["restart box1", "restart box2"]
    assert said[-1] == "box2 is back in the cluster"
    assert not cluster.step(600)
    assert stage.done == ["restart box1", "restart box2"]


def test_a_host_that_is_missing_once_is_given_time() -> None:
    both = {"box1", "box2"}
    stage = Stage({"box1": HEALTHY, "box2": {"Status": "running"}}, [both, {"box1"}, both, {"box1"}, both])
    cluster = _cluster(stage, [])
    assert [cluster.step(600) for _ in range(5)] == [False] * 5
    assert stage.done == []


def test_a_server_that_ends_names_the_host_that_it_ended_of() -> None:
    said: list[str] = []
    stage = Stage(RUNNING, [{"box1", "box2"}, {"box1"}])
    cluster = _cluster(stage, said)
    cluster.wait_joined(600)
    stage.states |= {"box1": {"Status": "exited", "ExitCode": 1}, "box2": KILLED}
    with pytest.raises(CheckFailed):
        cluster.wait_healthy(600)
    assert any("box2 dropped out" in line for line in said)


def test_an_image_that_refuses_its_cards_says_so() -> None:
    stage = Stage({"box1": {"Status": "exited", "ExitCode": 4}}, [{"box1"}])
    stage.logs = {"box1": "preflight: an-image has no code for Tesla T4 (7.5)\n  do: docker pull another\n"}
    with pytest.raises(NoImageFits, match="no code for Tesla T4"):
        _cluster(stage, []).wait_healthy(600)


def test_half_a_cluster_is_removed() -> None:
    stage = Stage({}, [set()])
    cluster = _cluster(stage, [])
    with pytest.raises(RuntimeError), cluster.or_remove():
        cluster.start()
        raise RuntimeError
    assert stage.done == ["start box1", "start box2", "remove box2", "remove box1"]


def test_what_is_checked_before_anything_starts() -> None:
    stage = Stage({}, [set()])
    cluster = _cluster(stage, [])
    cluster.check()
    stage.seen = Seen(stage.seen.interfaces, model=False)
    with pytest.raises(UsageError, match="box1 has no model in /srv/tiny"):
        cluster.check()
    stage.seen = Seen({"ens3": ("10.78.0.11",)}, model=True)
    with pytest.raises(UsageError, match="box1 has no network card 'eth0'"):
        cluster.check()
    stage.states["box1"] = HEALTHY
    with pytest.raises(UsageError, match="has a container cardstock-box1 already"):
        cluster.check()
    stage.engine = SimpleNamespace(inspect=lambda _: None)
    with pytest.raises(NothingSelected, match="box1 does not have the image repo/image:cpu"):
        cluster.check()


def test_an_engine_that_cannot_be_reached_is_told_with_its_host() -> None:
    def connect(host: Host) -> ClusterContainers:
        if host.engine:
            raise EngineUnreachable("no engine answers at ssh://box2")
        return Stage({}, [set()])

    with pytest.raises(EngineUnreachable) as caught:
        engines_of(parse_hosts(CARDS), connect)
    assert caught.value.what == "box2 cannot be reached: no engine answers at ssh://box2"


def test_what_an_engine_says_is_told_with_its_host() -> None:
    with pytest.raises(CardstockError) as caught, told_of(HOSTS.head):
        raise CardstockError("a container could not be started", cause='could not select device driver "" with gpu')
    assert caught.value.what == "box1: a container could not be started"
    assert "container toolkit on box1" in caught.value.do
