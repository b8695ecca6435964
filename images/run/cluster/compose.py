"""A compose file for one host of a cluster. Pure; strings are data."""

from __future__ import annotations

from typing import Any

import yaml

from images.docker import TMPFS, literal
from images.run.cluster.hosts import Hosts
from images.run.cluster.nodes import LABEL, TOKEN, Node


def compose_files(hosts: Hosts, node: Node) -> str:
    """The file for ``node``'s host: `docker compose up -d` there, the head's first or not."""
    service: dict[str, Any] = {
        "image": node.image,
        "container_name": node.name,
        "command": list(node.command),
        "restart": "unless-stopped",
        "environment": dict(node.env),
        "volumes": [
            {"type": m.kind, "source": m.source, "target": m.target, **({"read_only": True} if m.read_only else {})}
            for m in node.mounts
        ],
        "labels": {LABEL: hosts.head.name},
        "shm_size": f"{node.shm}gb",
        "read_only": True,
        "tmpfs": [":".join(TMPFS)],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": "30s",
    }
    if not node.head:
        service["healthcheck"] = {"disable": True}  # the image's asks for a server, and this host has none
    if node.host.devices:
        ids = [str(device) for device in node.host.devices]
        device = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    if hosts.network:
        service["networks"] = {"cluster": {_family(node.host.address): node.host.address}}
    else:
        service["network_mode"] = "host"
    whole: dict[str, Any] = literal({"services": {"ray": service}})
    # The only variables of the file: without the first one compose stops and says what to do.
    variables = whole["services"]["ray"]["environment"]
    variables |= {name: f"${{{name}:-}}" for name in node.passed}
    variables[TOKEN] = f"${{{TOKEN}:?the same on all hosts: openssl rand -hex 32}}"
    volumes = {mount.source: {"name": mount.source} for mount in node.mounts if mount.kind == "volume"}
    whole["volumes"] = volumes
    if hosts.network:
        whole["networks"] = {"cluster": {"external": True, "name": literal(hosts.network)}}
    return yaml.safe_dump(whole, sort_keys=False, width=1000, allow_unicode=True)


def _family(address: str) -> str:
    return "ipv6_address" if ":" in address else "ipv4_address"
