"""A server as people take it elsewhere: a `docker run` line, a compose file. Pure; strings are data."""

from __future__ import annotations

import csv
import io
import shlex
from typing import Any

import yaml

from images.docker.container_spec import PORT, TMPFS, ContainerSpec, Gpus
from images.docker.facts import Mount

# SIGKILL comes so many seconds after SIGTERM; answers under way are given up after 5.
GRACE = 30


def docker_words(serving: ContainerSpec) -> list[str]:
    """`docker run` with everything that `invoke serve` sets."""
    words = ["docker", "run", "--detach", "--name", serving.name, "--restart", serving.restart]
    words += ["--gpus", serving.gpus.word] if serving.gpus else []
    words += ["--shm-size", f"{serving.shm}g"] if serving.shm else []
    words += ["--publish", f"{_address(serving.host)}:{serving.port}:{PORT}"]
    words += ["--read-only", "--tmpfs", ":".join(TMPFS)]
    words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--stop-timeout", str(GRACE)]
    words += [word for mount in serving.mounts for word in ("--mount", _mount_word(mount))]
    words += [word for pair in serving.env for word in ("--env", "=".join(pair))]
    words += [word for name in serving.passed for word in ("--env", name)]
    words += [word for pair in serving.labels for word in ("--label", "=".join(pair))]
    return [*words, serving.image, *serving.arguments]


def docker_line(serving: ContainerSpec) -> str:
    """The same, as it is typed into a shell."""
    return shlex.join(docker_words(serving))


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _mount_word(mount: Mount) -> str:
    """The value of ``--mount``, one CSV record: a path may hold commas, colons and quotes."""
    fields = [f"type={mount.kind}", f"source={mount.source}", f"target={mount.target}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *(["readonly"] if mount.read_only else [])])
    return line.getvalue()


def compose(serving: ContainerSpec) -> str:
    """A compose file with one service."""
    service: dict[str, Any] = {
        "image": serving.image,
        "container_name": serving.name,
        "command": list(serving.arguments),
        "restart": serving.restart,
        "ports": [_port(serving)],
        "volumes": [_volume(mount) for mount in serving.mounts],
        "environment": dict(serving.env) | dict.fromkeys(serving.passed),
        "labels": dict(serving.labels),
        "read_only": True,
        "tmpfs": [":".join(TMPFS)],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": f"{GRACE}s",
    }
    if serving.shm:
        service["shm_size"] = f"{serving.shm}gb"
    if serving.gpus:
        service["deploy"] = {"resources": {"reservations": {"devices": [_device(serving.gpus)]}}}
    volumes = {mount.source: {"name": mount.source} for mount in serving.mounts if mount.kind == "volume"}
    whole = {"services": {serving.name: service}, **({"volumes": volumes} if volumes else {})}
    return yaml.safe_dump(literal(whole), sort_keys=False, width=1000, allow_unicode=True)


def literal(value: Any) -> Any:
    """The value with every ``$`` doubled: compose would put a variable in its place."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: literal(below) for key, below in value.items()}
    return [literal(below) for below in value] if isinstance(value, list) else value


def _port(serving: ContainerSpec) -> dict[str, Any]:
    return {"target": PORT, "published": str(serving.port), "host_ip": serving.host, "protocol": "tcp"}


def _volume(mount: Mount) -> dict[str, Any]:
    out: dict[str, Any] = {"type": mount.kind, "source": mount.source, "target": mount.target}
    return {**out, "read_only": True} if mount.read_only else out


def _device(gpus: Gpus) -> dict[str, Any]:
    which = {"device_ids": list(gpus.devices)} if gpus.devices else {"count": "all" if gpus.count < 0 else gpus.count}
    return {"driver": "nvidia", **which, "capabilities": ["gpu"]}
