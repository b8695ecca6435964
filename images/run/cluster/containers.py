"""The containers of a cluster on one engine: made, asked, looked at, started again, removed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from images.core import CardstockError, CheckFailed, NoImageFits
from images.docker import MODELS, TMPFS, Containers, ContainerState, Engine, Mount
from images.run.cluster.hosts import Hosts
from images.run.cluster.nodes import LABEL, Node
from images.run.serve import PREFLIGHT

# What a host's container sees: its network cards with their addresses, and whether a model is there.
_LOOK = f"""
import json, os, psutil
cards = {{}}
for name, found in psutil.net_if_addrs().items():
    cards[name] = [one.address.partition("%")[0] for one in found if one.family in (2, 10)]
print(json.dumps({{"interfaces": cards, "model": os.path.isfile("{MODELS}/config.json")}}))
"""


@dataclass(frozen=True)
class Seen:
    """What a container on a host sees: addresses by network card, and whether the model's config.json is there."""

    interfaces: Mapping[str, tuple[str, ...]]
    model: bool


class Boxes:
    """One engine's part of a cluster. Methods raise CardstockError for a refusal, EngineUnreachable for no answer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.containers: Containers = engine.containers

    def find(self, node: Node) -> ContainerState | None:
        """The node's container."""
        return self.containers.find(node.name)

    def look(self, hosts: Hosts, node: Node) -> Seen:
        """What a container on this host sees; one is made for it, in the same network, and removed again."""
        one = replace(node, name=f"{node.name}-look", command=("python", "-c", _LOOK), head=False)
        if self.containers.find(one.name):
            self.containers.remove(one.name)
        self.launch(hosts, one, {})
        try:
            code, told = self.containers.ended(one.name, 120)
        finally:
            self.containers.remove(one.name)
        if code == PREFLIGHT:
            raise NoImageFits(f"{node.image} does not fit the cards of {node.host.name}", cause=told.strip())
        try:
            found = json.loads(told.strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise CheckFailed(f"no container could look around on {node.host.name}", cause=told[-800:]) from error
        interfaces = {str(name): tuple(map(str, those)) for name, those in found["interfaces"].items()}
        return Seen(interfaces, bool(found["model"]))

    def launch(self, hosts: Hosts, node: Node, environment: Mapping[str, str]) -> None:
        """Make and start the node's container; ``environment`` has the values of ``node.passed``."""
        address = node.host.address if hosts.network else ""
        self.containers.launch(node.image, node.command, create_words(hosts, node, environment), address)

    def keep(self, node: Node) -> None:
        """From now on the engine starts it again when it ends."""
        self.containers.keep(node.name, "unless-stopped")

    def log(self, node: Node, lines: int = 60) -> str:
        """The end of its log; empty where there is no container."""
        return self.containers.log(node.name, lines) if self.find(node) else ""

    def ray_status(self, node: Node) -> str | None:
        """What `ray status` says in this container; None where it cannot be asked or does not know."""
        try:
            code, out = self.containers.execute(node.name, ["ray", "status"])
        except CardstockError:
            return None
        return out if code == 0 else None

    def restart(self, node: Node) -> None:
        """End it, if it runs, and start it anew."""
        self.containers.restart(node.name, seconds=5)

    def remove(self, node: Node) -> bool:
        """Remove it, whatever it does; whether there was one. Raises CardstockError for a container of others."""
        found = self.find(node)
        if found is None:
            return False
        if LABEL not in found.labels:
            do = f"docker rm -f {node.name}, if it is yours"
            raise CardstockError(f"{node.name} is not a container of a cluster", do=do)
        self.containers.remove(node.name)
        return True


def create_words(hosts: Hosts, node: Node, environment: Mapping[str, str]) -> dict[str, Any]:
    """The node as docker-py takes it; the same container as `images.run.cluster.compose.compose` writes.

    Without a restart policy: it gets one when all is well, so that what cannot start does not start for ever.
    """
    passed = {name: environment[name] for name in node.passed if name in environment}
    ids = [str(device) for device in node.host.devices]
    return {
        "name": node.name,
        "environment": dict(node.env) | passed,
        "labels": {LABEL: hosts.head.name},
        "mounts": [_mount(mount) for mount in node.mounts],
        "tmpfs": dict([TMPFS]),
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": f"{node.shm}g",
        "device_requests": [{"device_ids": ids, "capabilities": [["gpu"]]}] if ids else None,
        "healthcheck": None if node.head else {"test": ["NONE"]},
        "network": hosts.network or "host",
    }


def _mount(mount: Mount) -> dict[str, Any]:
    return {"Type": mount.kind, "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
