"""A container as people take it elsewhere: a `docker run` line, a compose file. Pure; strings are data."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping
from typing import Any

from images.docker.container_spec import NETWORK_MODES, NO_CARDS, ContainerSpec, Gpus, Mount, PublishedPort


def docker_words(spec: ContainerSpec, *, foreground: bool = False) -> list[str]:
    """`docker run` with all that the spec says.

    In the foreground the container is removed when it ends, and so has no restart policy: docker takes one or the
    other.
    """
    words = ["docker", "run", *(["--rm"] if foreground else ["--detach"])]
    words += ["--name", spec.name] if spec.name else []
    words += [] if foreground else ["--restart", spec.restart]
    words += _gpus_words(spec.gpus)
    words += ["--shm-size", f"{spec.shm}g"] if spec.shm else []
    words += ["--memory", str(spec.memory), "--memory-swap", str(spec.memory)] if spec.memory else []
    words += ["--network", spec.network] if spec.network else []
    words += ["--ip6" if ":" in spec.address else "--ip", spec.address] if spec.address else []
    words += [word for port in spec.ports for word in ("--publish", _port_word(port))]
    words += ["--read-only"] if spec.read_only else []
    words += [word for pair in spec.tmpfs for word in ("--tmpfs", ":".join(pair))]
    words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--stop-timeout", str(spec.stop_timeout)]
    words += ["--user", spec.user] if spec.user else []
    words += ["--workdir", spec.workdir] if spec.workdir else []
    words += [] if spec.healthcheck else ["--no-healthcheck"]
    words += [word for mount in spec.mounts for word in ("--mount", _mount_word(mount))]
    words += [word for pair in spec.env for word in ("--env", "=".join(pair))]
    words += [word for name in spec.passed for word in ("--env", name)]
    words += [word for pair in spec.labels for word in ("--label", "=".join(pair))]
    # --entrypoint takes one word; those after it come before the arguments.
    first, *more = spec.entrypoint or ("",)
    words += [] if spec.entrypoint is None else ["--entrypoint", first]
    return [*words, spec.image, *more, *spec.arguments]


def docker_line(spec: ContainerSpec, *, foreground: bool = False) -> str:
    """The same, as it is typed into a shell."""
    return shlex.join(docker_words(spec, foreground=foreground))


def _gpus_words(gpus: Gpus) -> list[str]:
    if gpus == NO_CARDS:
        return []
    return (
        [word for name in gpus.cdi_names for word in ("--device", name)] if gpus.cdi else ["--gpus", _gpus_word(gpus)]
    )


def _gpus_word(gpus: Gpus) -> str:
    """What follows ``--gpus``; docker reads it as CSV, so several devices are quoted once more."""
    if gpus.devices:
        listed = "device=" + ",".join(gpus.devices)
        return f'"{listed}"' if len(gpus.devices) > 1 else listed
    return "all" if gpus.count < 0 else str(gpus.count)


def _port_word(port: PublishedPort) -> str:
    host = f"[{port.host}]" if ":" in port.host else port.host
    return f"{host}:{port.host_port or ''}:{port.container_port}"


def _mount_word(mount: Mount) -> str:
    """The value of ``--mount``, one CSV record: a path may hold commas, colons and quotes."""
    fields = [f"type={mount.kind}", f"source={mount.source}", f"target={mount.target}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *(["readonly"] if mount.read_only else [])])
    return line.getvalue()


def compose(spec: ContainerSpec, required: Mapping[str, str] | None = None) -> str:
    """A compose file with one service, of the container's name.

    ``required`` maps passed variables to what a person is told who has not set them: without them compose stops.
    """
    service = _literal(_service(spec))
    # These are the only variables of the file.
    service["environment"] |= {name: f"${{{name}:?{told}}}" for name, told in (required or {}).items()}
    whole: dict[str, Any] = {"services": {spec.name: service}}
    if volumes := {mount.source: {"name": mount.source} for mount in spec.mounts if mount.kind == "volume"}:
        whole["volumes"] = volumes
    if _is_named(spec.network):
        whole["networks"] = {spec.network: {"external": True, "name": _literal(spec.network)}}
    from images.core import to_yaml  # `docker run` is also written where Python has no YAML

    return to_yaml(whole)


def _service(spec: ContainerSpec) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": spec.image,
        "container_name": spec.name,
        "command": list(spec.arguments),
        "restart": spec.restart,
        "ports": [_port(port) for port in spec.ports],
        "volumes": [_volume(mount) for mount in spec.mounts],
        "environment": dict(spec.env) | dict.fromkeys(spec.passed),
        "labels": dict(spec.labels),
        "read_only": spec.read_only,
        "tmpfs": [":".join(pair) for pair in spec.tmpfs],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": f"{spec.stop_timeout}s",
        "user": spec.user,
        "working_dir": spec.workdir,
        "shm_size": f"{spec.shm}gb" if spec.shm else "",
        "mem_limit": str(spec.memory) if spec.memory else "",
        "memswap_limit": str(spec.memory) if spec.memory else "",
    }
    # What is not said is left out: an empty command would take the image's own away.
    service = {key: value for key, value in service.items() if value or key == "environment"}
    service |= {} if spec.entrypoint is None else {"entrypoint": list(spec.entrypoint)}
    service |= {} if spec.healthcheck else {"healthcheck": {"disable": True}}
    service |= _network(spec)
    if spec.gpus != NO_CARDS:
        service["deploy"] = {"resources": {"reservations": {"devices": [_device(spec.gpus)]}}}
    return service


def _literal(value: Any) -> Any:
    """The value with every ``$`` doubled: compose would put a variable in its place."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _literal(below) for key, below in value.items()}
    return [_literal(below) for below in value] if isinstance(value, list) else value


def _port(port: PublishedPort) -> dict[str, Any]:
    out: dict[str, Any] = {"target": port.container_port, "protocol": "tcp"}
    out |= {"published": str(port.host_port)} if port.host_port else {}
    return out | ({"host_ip": port.host} if port.host else {})


def _volume(mount: Mount) -> dict[str, Any]:
    out: dict[str, Any] = {"type": mount.kind, "source": mount.source, "target": mount.target}
    return {**out, "read_only": True} if mount.read_only else out


def _is_named(network: str) -> bool:
    return bool(network) and network not in NETWORK_MODES


def _network(spec: ContainerSpec) -> dict[str, Any]:
    if not _is_named(spec.network):
        return {"network_mode": spec.network} if spec.network else {}
    family = "ipv6_address" if ":" in spec.address else "ipv4_address"
    return {"networks": {spec.network: {family: spec.address} if spec.address else None}}


def _device(gpus: Gpus) -> dict[str, Any]:
    if gpus.cdi:  # compose wants capabilities of every device
        return {"driver": "cdi", "device_ids": list(gpus.cdi_names), "capabilities": ["gpu"]}
    which = {"device_ids": list(gpus.devices)} if gpus.devices else {"count": "all" if gpus.count < 0 else gpus.count}
    return {"driver": "nvidia", **which, "capabilities": ["gpu"]}
