"""A container as docker-py takes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from images.docker.container_spec import NO_CARDS, ContainerSpec, Gpus, Mount


def create_arguments(spec: ContainerSpec, environment: Mapping[str, str]) -> dict[str, Any]:
    """The keywords of docker-py's `containers.create`, beside the image; ``environment`` has the passed variables.

    The same container as `images.docker.container_text.docker_words` starts, but for the stop timeout: docker-py's
    `create` does not take it, so whoever stops the container says it.
    """
    own = {"IPv6Address" if ":" in spec.address else "IPv4Address": spec.address}
    return {
        "name": spec.name or None,
        "command": list(spec.arguments),
        "entrypoint": None if spec.entrypoint is None else list(spec.entrypoint),
        # None is a name without a value: the engine takes the variable away, as it does for the docker CLI.
        "environment": dict(spec.env) | {name: environment.get(name) for name in spec.passed},
        "mounts": [_mount(mount) for mount in spec.mounts],
        "ports": _ports(spec),
        "device_requests": [_request(spec.gpus)] if spec.gpus != NO_CARDS else None,
        "shm_size": f"{spec.shm}g" if spec.shm else None,
        "mem_limit": spec.memory or None,
        "memswap_limit": spec.memory or None,  # of both together: none beside the memory
        "network": spec.network or None,
        "networking_config": {spec.network: {"IPAMConfig": own}} if spec.address else None,
        "labels": dict(spec.labels),
        "restart_policy": {"Name": spec.restart},
        "user": spec.user or None,
        "working_dir": spec.workdir or None,
        "healthcheck": None if spec.healthcheck else {"test": ["NONE"]},
        "read_only": spec.read_only,
        "tmpfs": dict(spec.tmpfs),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
    }


def _mount(mount: Mount) -> dict[str, Any]:
    """In the form of the engine's API: a path with a colon in it stays one path."""
    return {"Type": mount.kind, "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}


def _ports(spec: ContainerSpec) -> dict[str, list[tuple[str, int | None]]]:
    out: dict[str, list[tuple[str, int | None]]] = {}
    for port in spec.ports:
        out.setdefault(f"{port.container_port}/tcp", []).append((port.host, port.host_port or None))
    return out


def _request(gpus: Gpus) -> dict[str, Any]:
    if gpus.cdi:
        return {"driver": "cdi", "device_ids": list(gpus.cdi_names)}
    which: dict[str, Any] = {"device_ids": list(gpus.devices)} if gpus.devices else {"count": gpus.count}
    return {**which, "capabilities": [["gpu"]]}
