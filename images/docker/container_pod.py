"""A container as Kubernetes takes it: a container of a pod and the pod's volumes. Pure; strings are data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from images.core import UsageError
from images.docker.container_spec import ContainerSpec

# The resource of NVIDIA's device plugin: whole cards, and MIG instances where it runs by its strategy "single".
CARDS = "nvidia.com/gpu"
SHM = "/dev/shm"  # noqa: S108  (a path in the container)
# RFC 1035: names of Services, which are the strictest of those that are made here.
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def pod_container(
    spec: ContainerSpec, secret: str, optional: frozenset[str] = frozenset(), name: str = ""
) -> dict[str, Any]:
    """The container, called ``name`` or as the spec has it.

    What the spec passes on comes from the Secret ``secret``, by its own name; without those that are not ``optional``
    the pod does not start. Kubernetes chooses the cards itself: of devices by index or UUID their number is asked for.
    """
    from_secret = [
        {"name": one, "valueFrom": {"secretKeyRef": {"name": secret, "key": one, "optional": one in optional}}}
        for one in spec.passed
    ]
    mounts = [
        {"name": volume_name(one.target), "mountPath": one.target, **({"readOnly": True} if one.read_only else {})}
        for one in spec.mounts
    ]
    mounts += [{"name": volume_name(path), "mountPath": path} for path in [*dict(spec.tmpfs), *_shm(spec)]]
    out: dict[str, Any] = {
        "name": name or spec.name,
        "image": spec.image,
        "args": [literal(word) for word in spec.arguments],
        "env": [{"name": one, "value": literal(value)} for one, value in spec.env] + from_secret,
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": spec.read_only,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    limits = {CARDS: len(spec.gpus.devices) or max(0, spec.gpus.count), "memory": spec.memory}
    if limits := {one: most for one, most in limits.items() if most}:
        out["resources"] = {"limits": limits}
    return out


def pod_volumes(spec: ContainerSpec, claims: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """What is mounted, named by its place in the container.

    A docker volume becomes the claim that ``claims`` has for its name, else the pod's own folder, which goes with it.
    """
    for mount in spec.mounts:
        yield {"name": volume_name(mount.target), **_place(mount.source, mount.kind, claims or {})}
    yield from ({"name": volume_name(path), "emptyDir": {}} for path, _ in spec.tmpfs)
    if spec.shm:
        yield {"name": volume_name(SHM), "emptyDir": {"medium": "Memory", "sizeLimit": f"{spec.shm}Gi"}}


def _place(source: str, kind: str, claims: Mapping[str, str]) -> dict[str, Any]:
    if kind == "bind":
        return {"hostPath": {"path": source, "type": "Directory"}}
    return {"persistentVolumeClaim": {"claimName": claims[source]}} if source in claims else {"emptyDir": {}}


def _shm(spec: ContainerSpec) -> list[str]:
    return [SHM] if spec.shm else []


def pod_security(user: int) -> dict[str, Any]:
    """What a pod's programs run as: ``user``, whose group may write to its volumes, behind the runtime's own filter."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_shut() -> dict[str, Any]:
    """What a pod is not given: a token of Kubernetes' API, and variables of the namespace's Services.

    The latter would set variables of ours: a Service called cardstock sets CARDSTOCK_PORT, one called vllm VLLM_PORT.
    """
    return {"automountServiceAccountToken": False, "enableServiceLinks": False}


def volume_name(target: str) -> str:
    """The name of a pod's volume for a place in the container."""
    return as_label(PurePosixPath(target).name)


def as_label(name: str) -> str:
    """A name as one of Kubernetes' objects: what they do not allow becomes "-"."""
    return re.sub(r"[^a-z0-9-]", "-", name.lower())


def check_label(name: str, flag: str) -> str:
    """A name that Kubernetes' objects may have as it is. Raises UsageError."""
    if not _LABEL.fullmatch(name):
        raise UsageError(
            f"{flag} {name!r} cannot be the name of a Deployment and its Service",
            cause="it takes up to 63 lower-case letters, digits and '-', a letter first and no '-' last (RFC 1035)",
            do=f"{flag} cardstock",
        )
    return name


def literal(text: str) -> str:
    """Kubernetes puts a variable in the place of $(NAME), and one dollar in that of two."""
    return text.replace("$", "$$")
