"""The same cluster for Kubernetes: a RayCluster of the KubeRay operator and a Service for the API. Pure.

Read in KubeRay's ray-operator/controllers/ray/common/pod.go at feeaf72: with the annotation below it leaves the
containers' arguments alone, it keeps probes that are given (its own ask a dashboard and wget, which the images have
not), and it lets workers wait for the head in a container of the same image and environment.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from images.docker import CACHE, MODELS
from images.run.cluster.hosts import Hosts
from images.run.cluster.nodes import API_KEY, LABEL, TOKEN, Node

NAME = "cardstock"
SECRET = "cardstock-ray"  # noqa: S105  (the name of a Secret)
_OWN_COMMAND = "ray.io/overwrite-container-cmd"


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
    documents = [yaml.safe_dump(one, sort_keys=False, width=1000, allow_unicode=True) for one in (cluster, service)]
    first = f"# kubectl create secret generic {SECRET} --from-literal={TOKEN}=$(openssl rand -hex 32) comes first.\n"
    return first + "---\n".join(documents)


def _label(name: str) -> str:
    """A host's name as a name of Kubernetes' objects."""
    return re.sub(r"[^a-z0-9-]", "-", name.lower())


def _pod(hosts: Hosts, node: Node) -> dict[str, Any]:
    """A host's pod, on the host's own network as with compose, so that addresses and network cards are the same."""
    host = node.host
    volumes: list[dict[str, Any]] = [
        {"name": "models", "hostPath": {"path": hosts.folder_of(host), "type": "Directory"}},
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{node.shm}Gi"}},
    ]
    return {
        "metadata": {"labels": {LABEL: _label(hosts.head.name)}},
        "spec": {
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "nodeSelector": {"kubernetes.io/hostname": host.name},
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
            "containers": [_container(hosts, node)],
            "volumes": volumes,
        },
    }


def _container(hosts: Hosts, node: Node) -> dict[str, Any]:
    # Kubernetes reads $(NAME) in arguments; a doubled dollar is one.
    arguments = [word.replace("$(", "$$(") for word in node.command]
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": name, "optional": name == API_KEY}}}
        for name in node.passed
    ]
    alive = {"exec": {"command": ["ray", "health-check"]}, "initialDelaySeconds": 60, "periodSeconds": 30}
    ready = {"httpGet": {"path": "/health", "port": hosts.port}, "periodSeconds": 10} if node.head else alive
    out: dict[str, Any] = {
        "name": "ray-head" if node.head else "ray-worker",
        "image": node.image,
        "args": arguments,
        "env": [{"name": name, "value": value.replace("$(", "$$(")} for name, value in node.env.items()] + secret,
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS, "readOnly": True},
            {"name": "cache", "mountPath": CACHE},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (a path in the container)
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "livenessProbe": alive | {"timeoutSeconds": 20, "failureThreshold": 10},
        "readinessProbe": ready | {"timeoutSeconds": 10 if node.head else 20, "failureThreshold": 3},
    }
    if node.host.devices:
        out["resources"] = {"limits": {"nvidia.com/gpu": len(node.host.devices)}}
    return out
