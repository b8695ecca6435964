"""The same cluster for Kubernetes: a RayCluster of the KubeRay operator and a Service for the API. Pure.

Read in KubeRay's ray-operator/controllers/ray/common/pod.go at feeaf72: with the annotation below it leaves the
containers' arguments alone, it keeps probes that are given (its own ask a dashboard and wget, which the images have
not), and it lets workers wait for the head in a container of the same image and environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from images.core import to_yaml
from images.docker import ContainerSpec
from images.render import USER
from images.run.cluster.hosts import Hosts
from images.run.cluster.nodes import API_KEY, TOKEN, Node

NAME = "cardstock"
SECRET = "cardstock-ray"  # noqa: S105  (the name of a Secret)
_OWN_COMMAND = "ray.io/overwrite-container-cmd"
_SHM = "/dev/shm"  # noqa: S108  (a path in the container)


def kuberay_manifest(hosts: Hosts, nodes: tuple[Node, ...]) -> str:
    """Two documents for `kubectl apply -f`: RayCluster and Service. Each pod runs on the host whose name it has."""
    head, *workers = nodes
    groups = [
        {"groupName": _label(node.host.name), "replicas": 1, "minReplicas": 1, "maxReplicas": 1, "rayStartParams": {}}
        | {"template": _pod(hosts, node)}
        for node in workers
    ]
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": NAME, "annotations": {_OWN_COMMAND: "true"}},
        "spec": {
            "headGroupSpec": {"rayStartParams": {}, "template": _pod(hosts, head)},
            "workerGroupSpecs": groups,
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{NAME}-api"},
        "spec": {
            "selector": {"ray.io/cluster": NAME, "ray.io/node-type": "head"},
            "ports": [{"name": "http", "port": hosts.port, "targetPort": hosts.port}],
        },
    }
    documents = [to_yaml(one) for one in (cluster, service)]
    first = f"# kubectl create secret generic {SECRET} --from-literal={TOKEN}=$(openssl rand -hex 32) comes first.\n"
    return first + "---\n".join(documents)


def _label(name: str) -> str:
    """A host's name as a name of Kubernetes' objects."""
    return re.sub(r"[^a-z0-9-]", "-", name.lower())


def _pod(hosts: Hosts, node: Node) -> dict[str, Any]:
    """A host's pod, on the host's own network as with compose, so that addresses and network cards are the same."""
    user = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return {
        "metadata": {"labels": {name: _label(value) for name, value in node.spec.labels}},
        "spec": {
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "nodeSelector": {"kubernetes.io/hostname": node.host.name},
            "securityContext": user,
            "terminationGracePeriodSeconds": node.spec.stop_timeout,
            "containers": [_container(node) | _probes(hosts, node)],
            "volumes": list(_volumes(node.spec)),
        },
    }


def _volumes(spec: ContainerSpec) -> Iterator[dict[str, Any]]:
    """What is mounted, named by its place in the container; a docker volume becomes the pod's own folder."""
    for mount in spec.mounts:
        path = {"hostPath": {"path": mount.source, "type": "Directory"}} if mount.kind == "bind" else {"emptyDir": {}}
        yield {"name": _volume_name(mount.target), **path}
    yield from ({"name": _volume_name(path), "emptyDir": {}} for path, _ in spec.tmpfs)
    yield {"name": _volume_name(_SHM), "emptyDir": {"medium": "Memory", "sizeLimit": f"{spec.shm}Gi"}}


def _volume_name(target: str) -> str:
    return _label(PurePosixPath(target).name)


def _container(node: Node) -> dict[str, Any]:
    """The container of a docker spec, in Kubernetes' words."""
    spec = node.spec
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": name, "optional": name == API_KEY}}}
        for name in spec.passed
    ]
    mounts = [
        {"name": _volume_name(one.target), "mountPath": one.target, **({"readOnly": True} if one.read_only else {})}
        for one in spec.mounts
    ]
    mounts += [{"name": _volume_name(path), "mountPath": path} for path in [*dict(spec.tmpfs), _SHM]]
    out: dict[str, Any] = {
        "name": "ray-head" if node.head else "ray-worker",
        "image": spec.image,
        "args": [_literal(word) for word in spec.arguments],
        "env": [{"name": name, "value": _literal(value)} for name, value in spec.env] + secret,
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": spec.read_only,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    limits = {"nvidia.com/gpu": len(spec.gpus.devices), "memory": spec.memory}
    if limits := {name: most for name, most in limits.items() if most}:
        out["resources"] = {"limits": limits}
    return out


def _literal(text: str) -> str:
    """Kubernetes puts a variable in the place of $(NAME), and one dollar in that of two."""
    return text.replace("$", "$$")


def _probes(hosts: Hosts, node: Node) -> dict[str, Any]:
    """Ray's own question on every host; on the head, which serves, the server's health decides who may ask it."""
    alive = {"exec": {"command": ["ray", "health-check"]}, "initialDelaySeconds": 60, "periodSeconds": 30}
    ready = {"httpGet": {"path": "/health", "port": hosts.port}, "periodSeconds": 10} if node.head else alive
    return {
        "livenessProbe": alive | {"timeoutSeconds": 20, "failureThreshold": 10},
        "readinessProbe": ready | {"timeoutSeconds": 10 if node.head else 20, "failureThreshold": 3},
    }
