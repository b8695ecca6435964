"""Where the published ports of a container are, by the engine's own answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from images.core import EngineUnreachable


def host_port_of(attributes: Mapping[str, Any], container_port: int) -> int:
    """The port of the engine's machine that leads to a container's; ``attributes`` answer an inspect.

    Raises EngineUnreachable where there is none.
    """
    ports = (attributes.get("NetworkSettings") or {}).get("Ports") or {}
    for one in ports.get(f"{container_port}/tcp") or ():
        return int(one["HostPort"])
    raise EngineUnreachable(
        f"the engine has published no port for the container, so nobody reaches its port {container_port}",
        cause='containers have no network there: the engine was started with "bridge": "none", or without iptables',
        do='take "bridge": "none" out of the engine\'s /etc/docker/daemon.json, and restart it',
        where="docker network ls; docker inspect -f '{{json .NetworkSettings}}' NAME",
    )


def check_published(attributes: Mapping[str, Any], container_ports: Sequence[int]) -> None:
    """That a container which runs is reached at each of its ports. Raises EngineUnreachable.

    One that has ended already has no ports any more; why it has is told elsewhere.
    """
    if (attributes.get("State") or {}).get("Running"):
        for port in container_ports:
            host_port_of(attributes, port)
