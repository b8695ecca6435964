"""From hosts.yaml and a fit to what runs on each host: one container each, the head's and the workers'. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from images.core import NoImageFits
from images.docker import ContainerSpec, Gpus, Mount
from images.render import CACHE, ENTRYPOINT, MODELS
from images.run.cluster.hosts import Host, Hosts
from images.run.fit import Fit, Model, Split, host_memory, memory_limit, server_flags, shm_gigabytes
from images.run.fit import environment as fit_environment
from images.run.serve import CACHE_VOLUME, NOTHING, Opened, cpu_length, merged, on_cpu, read_flags

# What Ray keeps in shared memory; vLLM sends hardly anything through it. In bytes, beside what vLLM itself needs.
OBJECT_STORE = 256 * 2**20
# Taken from whoever starts it, so that they are in no file: the key of Ray's ports, and that of the API.
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105  (a variable's name)
API_KEY = "VLLM_API_KEY"
OWN_TOKEN = 32  # bytes of a key that is made for a run
LABEL = "dev.cardstock.cluster"


@dataclass(frozen=True)
class ClusterPlan:
    """What is served: the image, the split, the engine's flags; ``shm`` is in GiB, ``served`` the API's name of it.

    ``memory`` of each host's container in bytes, 0: docker's own; ``opened`` what the guard lets in beyond its own;
    ``environment`` is the fit's, the same on all hosts.
    """

    image: str
    variant: str
    split: Split
    flags: tuple[str, ...]
    shm: int
    served: str
    memory: int = 0
    opened: Opened = NOTHING
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Node:
    """A host and its container; ``head``: that of the host which serves."""

    host: Host
    head: bool
    spec: ContainerSpec


def fitted(hosts: Hosts, found: Fit, image: str, user: Sequence[str] = ()) -> ClusterPlan:
    """The plan of a fit; ``user`` are flags that win over it."""
    served = PurePosixPath(hosts.folder).name
    said = read_flags(user)
    words = tuple(merged(["--served-model-name", served, *server_flags(found, said)], said))
    memory = memory_limit(host_memory(found)) + OBJECT_STORE
    own_environment = tuple(fit_environment(found, said).items())
    return ClusterPlan(
        image,
        found.ask.variant.id,
        found.split,
        words,
        shm_gigabytes(found),
        served,
        memory,
        environment=own_environment,
    )


def on_cpus(hosts: Hosts, model: Model, variant: str, image: str, user: Sequence[str] = ()) -> ClusterPlan:
    """The plan without cards: a pipeline stage for each host. Raises NoImageFits for more hosts than layers."""
    stages = len(hosts.hosts)
    if stages > model.shape.layers:
        raise NoImageFits(
            f"{model.name} cannot be cut for {stages} hosts",
            cause=f"it has {model.shape.layers} layers, and each host holds at least one",
            do="use fewer hosts",
            where="vllm/distributed/utils.py get_pp_indices",
        )
    served = PurePosixPath(hosts.folder).name
    own = ["--served-model-name", served, "--pipeline-parallel-size", str(stages)]
    own += ["--max-model-len", str(cpu_length(model)), "--distributed-executor-backend", "ray"]
    # vLLM makes what a later stage receives into while it warms up, which it does not do on a CPU when it is eager;
    # mode 1 compiles nothing either (gpu_model_runner.py, cpu_worker.py _should_warm_up_model @v0.32.0).
    own += ["--no-enforce-eager", "--compilation-config", '{"mode": 1}']
    memory = memory_limit(on_cpu(model)) + OBJECT_STORE
    return ClusterPlan(image, variant, Split(1, stages), tuple(merged(own, read_flags(user))), 2, served, memory)


def resource(host: Host) -> str:
    """The Ray resource that only this host has: so `ray status` tells hosts by name."""
    return f"host-{host.name}"


def ray_start(hosts: Hosts, host: Host) -> list[str]:
    """`ray start` on one host. A slot of Ray's "GPU" is a part of the model, on a host without cards too."""
    own = json.dumps({resource(host): 1})
    words = ["ray", "start"]
    if host == hosts.head:
        words += ["--head", "--port", str(hosts.ray_port), "--include-dashboard", "false"]
    else:
        words += ["--address", f"{_bracketed(hosts.head.address)}:{hosts.ray_port}"]
    words += ["--node-ip-address", host.address, "--num-gpus", str(host.slots), "--resources", own]
    words += ["--object-store-memory", str(OBJECT_STORE), "--disable-usage-stats"]
    return words if host == hosts.head else [*words, "--block"]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def command(hosts: Hosts, host: Host, plan: ClusterPlan) -> list[str]:
    """What the host's container runs.

    A worker stays as long as Ray does. The head becomes the server, which waits until Ray has a place for every part
    of the model; so its log, its health check and its end are the server's, and a restart policy starts both anew.
    """
    start = ray_start(hosts, host)
    if host != hosts.head:
        return start
    serve = [ENTRYPOINT, *plan.flags]
    return ["sh", "-c", f"{shlex.join(start)} && exec {shlex.join(serve)}"]


def environment(hosts: Hosts, host: Host) -> dict[str, str]:
    """The network card and address by which this host talks to the others, for vLLM, NCCL, Gloo and Ray alike."""
    own = {
        "VLLM_HOST_IP": host.address,
        "NCCL_SOCKET_IFNAME": hosts.interface_of(host),
        "GLOO_SOCKET_IFNAME": hosts.interface_of(host),
        "RAY_ADDRESS": f"{_bracketed(hosts.head.address)}:{hosts.ray_port}",
        "RAY_AUTH_MODE": "token",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "HF_HUB_OFFLINE": "1",
    }
    if host == hosts.head:
        own["CARDSTOCK_PORT"] = str(hosts.port)
    return own | hosts.environment


def make_nodes(hosts: Hosts, plan: ClusterPlan) -> tuple[Node, ...]:
    """One container a host, the head's first."""
    return tuple(Node(host, host == hosts.head, make_spec(hosts, host, plan)) for host in hosts.hosts)


def make_spec(hosts: Hosts, host: Host, plan: ClusterPlan) -> ContainerSpec:
    """A host's container, on the host's own network unless the hosts are given one."""
    head = host == hosts.head
    env = {**dict(plan.environment), **environment(hosts, host), **(plan.opened.environment() if head else {})}
    return ContainerSpec(
        plan.image,
        tuple(command(hosts, host, plan)),
        name=f"cardstock-{host.name}",
        env=tuple(env.items()),
        passed=(TOKEN, API_KEY) if head else (TOKEN,),
        mounts=(Mount(hosts.folder_of(host), MODELS), Mount(CACHE_VOLUME, CACHE, read_only=False)),
        gpus=Gpus(devices=tuple(map(str, host.devices)), cdi=host.cdi and bool(host.devices)),
        shm=plan.shm + 1,
        memory=plan.memory,
        network=hosts.network or "host",
        address=host.address if hosts.network else "",
        labels=((LABEL, hosts.head.name),),
        restart="always",
        healthcheck=head,  # the image's asks for a server, which runs on the head alone
    )
