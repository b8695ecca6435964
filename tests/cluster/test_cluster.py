"""Two machines, as far as one can have them: containers of the CPU's image with networks and memory of their own.

Ray's head and a worker, vLLM with a pipeline stage on each; its tokens are the golden ones, which an engine on one
machine gives too (tests/engine, level 4 of the proof). The worker is killed, named, and the cluster serves again.
Two starts of vLLM on two nodes each take minutes, so `invoke test` leaves this folder out and a weekly job runs it:

    .venv/bin/pytest tests/cluster
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.core.errors import UsageError
from images.docker.connection import connect
from images.docker.engine import Engine
from images.proof.smoke import server as serving
from images.proof.smoke.client import Client, chat_request
from images.proof.tiny_model.checkpoint import write_checkpoint
from images.run.cluster.containers import ClusterContainers
from images.run.cluster.hosts import Hosts, parse_hosts
from images.run.cluster.nodes import TOKEN, make_nodes, on_cpus
from images.run.cluster.run import Cluster
from images.run.cluster.status import read_status
from images.run.fit.find import read_model
from tests.engine.cpu_server import docker
from tests.helpers import matrices

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

GOLDEN = serving.read_golden(serving.GOLDEN.read_text())
PLUGIN = Path(__file__).parent / "ray_on_cpu"
VARIANT = next(name for name in matrices.variants().valid if name.startswith("cpu-"))
IMAGE = f"{matrices.matrix().image}:{VARIANT}"
LIMIT = 900.0


@dataclass(frozen=True)
class Lab:
    """An engine, a network of the test's own, a folder with the tiny model, and hosts in that network."""

    engine: Engine
    network: str
    folder: Path
    prefix: str

    def hosts(self, interface: str = "eth0", first: int = 11) -> Hosts:
        """Two hosts; ``first`` is the last number of the head's address."""
        named = {f"{self.network}-{number}": f"{self.prefix}.{number}" for number in (first, first + 1)}
        lines = [f"  - {{name: {name}, address: {address}}}" for name, address in named.items()]
        return parse_hosts(
            "\n".join(
                [
                    f"folder: {self.folder}",
                    f"network: {self.network}",
                    f"interface: {interface}",
                    'environment: {PYTHONPATH: "/models/ray_on_cpu:/opt/cardstock/plugins"}',
                    "hosts:",
                    *lines,
                ]
            )
        )

    def cluster(self, hosts: Hosts, said: list[str]) -> Cluster:
        """The hosts with their containers planned, as `invoke cluster` does."""
        plan = on_cpus(hosts, read_model(str(self.folder)), VARIANT, IMAGE, ["--max-model-len 2048"])
        containers = ClusterContainers(self.engine)
        environment = {TOKEN: "0" * 64}
        return Cluster(
            hosts, make_nodes(hosts, plan), {host.name: containers for host in hosts.hosts}, environment, said.append
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    engine = connect(say=print)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_checkpoint(folder)
    shutil.copytree(PLUGIN, folder / "ray_on_cpu")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    draw = random.Random(time.monotonic_ns())  # noqa: S311  # a network that nobody else has
    name, prefix = f"cs{draw.randrange(10**6)}", f"10.{draw.randrange(200, 250)}.{draw.randrange(256)}"
    docker(engine, ["network", "create", "--subnet", f"{prefix}.0/24", name])
    yield Lab(engine, name, folder, prefix)
    docker(engine, ["network", "rm", name])


@dataclass(frozen=True)
class Running:
    """A cluster that serves, and what it has said."""

    lab: Lab
    cluster: Cluster
    said: list[str]

    def tokens(self) -> list[tuple[int | str, ...]]:
        """What it answers to each golden question."""
        hosts = self.cluster.hosts
        client = Client(hosts.port, hosts.head.address)
        asked = [
            chat_request("tiny", golden.messages, max_tokens=len(golden.tokens) + 4, token_ids=True)
            for golden in GOLDEN
        ]
        return [client.chat(request).tokens for request in asked]

    def namespace(self, host: str, kind: str) -> str:
        """Which network ("net") or memory ("ipc") a host's container has."""
        return docker(self.lab.engine, ["exec", f"cardstock-{host}", "readlink", f"/proc/self/ns/{kind}"])


@pytest.fixture(scope="module")
def running(lab: Lab) -> Iterator[Running]:
    said: list[str] = []
    cluster = lab.cluster(lab.hosts(), said)
    cluster.check()
    with cluster.or_remove():
        cluster.start()
        cluster.wait_joined(LIMIT)
        cluster.wait_healthy(LIMIT)
        cluster.keep()
    yield Running(lab, cluster, said)
    cluster.remove()


def test_a_wrong_interface_is_told_before_anything_starts(lab: Lab) -> None:
    cluster = lab.cluster(lab.hosts(interface="eth7", first=21), [])
    with pytest.raises(UsageError) as caught:
        cluster.check()
    assert "has no network card 'eth7'; it has eth0, lo" in caught.value.what
    assert "interface: eth0" in caught.value.do


def test_a_folder_without_a_model_is_told(lab: Lab, tmp_path: Path) -> None:
    hosts = lab.hosts(first=31)
    cluster = lab.cluster(hosts, [])
    (tmp_path / "empty").mkdir()
    elsewhere = hosts.model_copy(update={"folder": str(tmp_path / "empty")})
    cluster.nodes = make_nodes(elsewhere, on_cpus(hosts, read_model(str(lab.folder)), VARIANT, IMAGE))
    with pytest.raises(UsageError, match="has no model in"):
        cluster.check()


def test_two_hosts_serve_with_a_stage_each(running: Running) -> None:
    head, worker = (host.name for host in running.cluster.hosts.hosts)
    for kind in ("net", "ipc"):
        assert running.namespace(head, kind) != running.namespace(worker, kind)
    told = ClusterContainers(running.lab.engine).ray_status(running.cluster.head)
    assert told is not None
    status = read_status(told)
    assert (status.nodes, status.slots, status.taken) == (2, 2, 2)
    assert status.joined(running.cluster.hosts.hosts) == {head, worker}
    log = ClusterContainers(running.lab.engine).log(running.cluster.head, 2000)
    assert "pipeline_parallel_size=2" in log
    assert "Worker_PP1" in log


def test_its_tokens_are_those_of_one_machine(running: Running) -> None:
    assert running.tokens() == [golden.tokens for golden in GOLDEN]


def test_a_killed_worker_is_named_and_the_cluster_serves_again(running: Running) -> None:
    worker = running.cluster.hosts.hosts[1].name
    del running.said[:]
    docker(running.lab.engine, ["kill", f"cardstock-{worker}"])
    while not running.cluster.step(LIMIT):
        pass
    assert any(f"{worker} dropped out" in line and "ended with 137" in line for line in running.said)
    assert any(f"{worker} is back" in line for line in running.said)
    assert running.cluster.watch.complete
    assert running.tokens() == [golden.tokens for golden in GOLDEN]
