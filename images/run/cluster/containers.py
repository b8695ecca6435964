"""The containers of a cluster on one engine: made, asked, looked at, started again, removed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from images.core import CardstockError, CheckFailed, NoImageFits
from images.docker import Containers, ContainerState, Engine
from images.render import MODELS
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


class ClusterContainers:
    """One engine's part of a cluster. Methods raise CardstockError for a refusal, EngineUnreachable for no answer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.containers: Containers = engine.containers

    def find(self, node: Node) -> ContainerState | None:
        """The node's container."""
        return self.containers.find(node.spec.name)

    def look(self, node: Node) -> Seen:
        """What a container on this host sees; one is made for it, in the same network, and removed again."""
        name = f"{node.spec.name}-look"
        spec = replace(
            node.spec, name=name, arguments=("python", "-c", _LOOK), passed=(), restart="no", healthcheck=False
        )
        if self.containers.find(name):
            self.containers.remove(name)
        self.containers.start(spec, {})
        try:
            code, told = self.containers.ended(name, 120)
        finally:
            self.containers.remove(name)
        if code == PREFLIGHT:
            raise NoImageFits(f"{node.spec.image} does not fit the cards of {node.host.name}", cause=told.strip())
        try:
            found = json.loads(told.strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise CheckFailed(f"no container could look around on {node.host.name}", cause=told[-800:]) from error
        interfaces = {str(name): tuple(map(str, those)) for name, those in found["interfaces"].items()}
        return Seen(interfaces, bool(found["model"]))

    def start(self, node: Node, environment: Mapping[str, str]) -> None:
        """Make and start the node's container; ``environment`` has the values that are passed to it.

        It gets its restart policy when all is well, so that what cannot start does not start for ever.
        """
        self.containers.start(replace(node.spec, restart="no"), environment)

    def keep(self, node: Node) -> None:
        """From now on the engine starts it again when it ends."""
        self.containers.keep(node.spec.name, node.spec.restart)

    def log(self, node: Node, lines: int = 60) -> str:
        """The end of its log; empty where there is no container."""
        return self.containers.log(node.spec.name, lines) if self.find(node) else ""

    def ray_status(self, node: Node) -> str | None:
        """What `ray status` says in this container; None where it cannot be asked or does not know."""
        try:
            code, out = self.containers.execute(node.spec.name, ["ray", "status"])
        except CardstockError:
            return None
        return out if code == 0 else None

    def restart(self, node: Node) -> None:
        """End it, if it runs, and start it anew."""
        self.containers.restart(node.spec.name, seconds=5)

    def remove(self, node: Node) -> bool:
        """Remove it, whatever it does; whether there was one. Raises CardstockError for a container of others."""
        found = self.find(node)
        if found is None:
            return False
        if LABEL not in found.labels:
            do = f"docker rm -f {node.spec.name}, if it is yours"
            raise CardstockError(f"{node.spec.name} is not a container of a cluster", do=do)
        self.containers.remove(node.spec.name)
        return True
