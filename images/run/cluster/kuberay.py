"""The same cluster for Kubernetes: a RayCluster of the KubeRay operator and a Service for the API. Pure.

Read in KubeRay's ray-operator/controllers/ray/common/pod.go at feeaf72: with the annotation below it leaves the
containers' arguments alone, it keeps probes that are given (its own ask a dashboard and wget, which the images have
not), and it lets workers wait for the head in a container of the same image and environment.
"""

from __future__ import annotations

from typing import Any

from images.core import to_yaml
from images.docker import as_label, pod_container, pod_security, pod_shut, pod_volumes
from images.render import USER
from images.run.cluster.hosts import Hosts
from images.run.cluster.nodes import API_KEY, TOKEN, Node

NAME = "cardstock"
SECRET = "cardstock-ray"  # noqa: S105  (the name of a Secret)
_OWN_COMMAND = "ray.io/overwrite-container-cmd"


def kuberay_manifest(hosts: Hosts, nodes: tuple[Node, ...]) -> str:
    """Two documents for `kubectl apply -f`: RayCluster and Service. Each pod runs on the host whose name it has."""
    head, *workers = nodes
    groups = [
        {"groupName": as_label(node.host.name), "replicas": 1, "minReplicas": 1, "maxReplicas": 1, "rayStartParams": {}}
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


def _pod(hosts: Hosts, node: Node) -> dict[str, Any]:
    """A host's pod, on the host's own network as with compose, so that addresses and network cards are the same."""
    container = pod_container(
        node.spec, SECRET, optional=frozenset({API_KEY}), name="ray-head" if node.head else "ray-worker"
    )
    return {
        "metadata": {"labels": {name: as_label(value) for name, value in node.spec.labels}},
        "spec": {
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "nodeSelector": {"kubernetes.io/hostname": node.host.name},
            "securityContext": pod_security(USER),
            **pod_shut(),
            "terminationGracePeriodSeconds": node.spec.stop_timeout,
            "containers": [container | _probes(hosts, node)],
            "volumes": list(pod_volumes(node.spec)),
        },
    }


def _probes(hosts: Hosts, node: Node) -> dict[str, Any]:
    """Ray's own question on every host; on the head, which serves, the server's health decides who may ask it."""
    alive = {"exec": {"command": ["ray", "health-check"]}, "initialDelaySeconds": 60, "periodSeconds": 30}
    ready = {"httpGet": {"path": "/health", "port": hosts.port}, "periodSeconds": 10} if node.head else alive
    return {
        "livenessProbe": alive | {"timeoutSeconds": 20, "failureThreshold": 10},
        "readinessProbe": ready | {"timeoutSeconds": 10 if node.head else 20, "failureThreshold": 3},
    }
