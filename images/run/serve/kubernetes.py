"""A server on one host of a Kubernetes cluster: its Deployment, Service and cache, or a Kustomize base of them. Pure.

The container is the one that `invoke serve` would start. What differs: the cache is a claim, cards are asked for by
their number, the key is always asked for and comes from a Secret, and names of the cluster's own DNS may be asked by.
KubeRay (images/run/cluster) is for a model that needs several machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from images.core import UsageError, to_yaml
from images.docker import CARDS, ContainerSpec, check_label, pod_container, pod_security, pod_shut, pod_volumes
from images.matrix import Variant
from images.registry import DIGEST
from images.render import USER
from images.run.fit import GIB, Model, stage_weights, vision_weights
from images.run.serve.make import API_KEYS, HUB_SETTINGS, REPOSITORY
from images.run.serve.opened import HOSTS

# The image's health check: HEALTHCHECK of dockerfiles/templates/Dockerfile.j2. The longest start until its health
# in records/cards took 263 s, on a card that acted as an older one; a slow disk may take more.
START_PERIOD = 900
INTERVAL, TIMEOUT, RETRIES = 10, 10, 6
# Bytes in a second of a hub that weights are fetched from: 100 Mbit/s, as `invoke bench` reckons for a pull.
FETCHED = 100_000_000 // 8
# Seconds between two questions while it starts.
OFTEN = 5
# In the claim beside the weights, GiB: what a start compiles and what a hub's client keeps (a round figure).
BESIDE = 10
# Names that Kubernetes' DNS gives a Service; neither ending is one of the internet's.
CLUSTER_NAMES = ("*.svc", "*.svc.cluster.local")
# The one of the passed variables that is no secret: it names where images are.
_PLAIN = (REPOSITORY,)


@dataclass(frozen=True)
class Served:
    """A server of Kubernetes: ``spec`` its container, by an ``image`` that the cluster pulls.

    ``wait`` are the seconds until it must be healthy, 0: what `start_seconds` says; ``environment`` is that of whoever
    prints it, ``fetched``: the pod fetches its model from a hub.
    """

    spec: ContainerSpec
    variant: Variant
    model: Model
    fetched: bool
    environment: Mapping[str, str]
    wait: int = 0


def check_restart(restart: str) -> None:
    """Raises UsageError for a policy that a Deployment cannot have."""
    if restart != "always":
        raise UsageError(
            f"--restart {restart} is not for Kubernetes",
            cause="the pods of a Deployment are always started again",
            do="leave it out",
        )


def check_digest(image: str) -> str:
    """The image, if it is one by digest of a registry. Raises UsageError."""
    name, _, digest = image.partition("@")
    if "/" not in name or not DIGEST.fullmatch(digest):
        raise UsageError(
            f"{image} is not an image by its digest",
            cause="a node pulls it by itself, and a tag may name another image by then",
            do="--from REPO, whose catalogue has the digest; or --image REPO:VARIANT@sha256:DIGEST",
        )
    return image


def start_seconds(model: Model, fetched: bool) -> int:
    """Seconds within which a first start is healthy: what the image's own check has, and those to fetch the weights."""
    return START_PERIOD + (math.ceil(_weights(model) / FETCHED) if fetched else 0)


def cache_gigabytes(model: Model, fetched: bool) -> int:
    """GiB of the cache's claim: the weights, where they are fetched into it, and what a start compiles."""
    return BESIDE + (math.ceil(_weights(model) / GIB) if fetched else 0)


def _weights(model: Model) -> int:
    return stage_weights(model, (model.shape.layers,), 0, 1) + vision_weights(model, 1)


def documents(served: Served) -> dict[str, dict[str, Any]]:
    """File -> object: the cache's claim, the Deployment, the Service. Raises UsageError for a name that cannot be."""
    name = check_label(served.spec.name, "--name")
    labels = {"app.kubernetes.io/name": "cardstock", "app.kubernetes.io/instance": name}
    port = served.spec.ports[0]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            # A second pod beside the first would wait for its cards and its cache for ever.
            "strategy": {"type": "Recreate"},
            "progressDeadlineSeconds": _start(served) + 600,  # the image is pulled within it too
            "selector": {"matchLabels": labels},
            "template": _pod(served, labels),
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": port.host_port, "targetPort": "http"}]},
    }
    return {**_claims(served, labels), "deployment.yaml": deployment, "service.yaml": service}


def _claims(served: Served, labels: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The cache's claim; none where the cache is a folder of the node."""
    size = f"{cache_gigabytes(served.model, served.fetched)}Gi"
    names = [mount.source for mount in served.spec.mounts if mount.kind == "volume"]
    if not names:
        return {}
    return {
        "cache.yaml": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": check_label(names[0], "--cache"), "labels": labels},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
        }
    }


def secret_of(served: Served) -> str:
    """The name of the Secret that the pod's keys come from."""
    return f"{served.spec.name}-keys"


def make_secret(served: Served) -> str:
    """What makes it, with a new key."""
    key = API_KEYS[served.variant.backend]
    return f"kubectl create secret generic {secret_of(served)} --from-literal={key}=$(openssl rand -hex 32)"


def manifest(served: Served) -> str:
    """One text for `kubectl apply -f`."""
    first = f"# First, once: {make_secret(served)}\n"
    return first + "---\n".join(to_yaml(one) for one in documents(served).values())


def kustomize_base(served: Served, told: str = "") -> dict[str, str]:
    """File -> text of a Kustomize base; ``told`` are lines that its first comment has too."""
    made = documents(served)
    whole = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(made)}
    first = f"# First, once: {make_secret(served)}\n{told}"
    return {"kustomization.yaml": first + to_yaml(whole), **{name: to_yaml(one) for name, one in made.items()}}


def _start(served: Served) -> int:
    return served.wait or start_seconds(served.model, served.fetched)


def _pod(served: Served, labels: Mapping[str, str]) -> dict[str, Any]:
    spec = _for_pod(served)
    key = API_KEYS[served.variant.backend]
    container = pod_container(spec, secret_of(served), optional=frozenset(spec.passed) - {key}, name="server")
    asked = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": TIMEOUT}
    out: dict[str, Any] = {
        "securityContext": pod_security(USER),
        **pod_shut(),
        "terminationGracePeriodSeconds": spec.stop_timeout,
        "containers": [
            container
            | {
                "ports": [{"name": "http", "containerPort": spec.ports[0].container_port}],
                "startupProbe": asked | {"periodSeconds": OFTEN, "failureThreshold": math.ceil(_start(served) / OFTEN)},
                "readinessProbe": asked | {"periodSeconds": INTERVAL, "failureThreshold": 3},
                "livenessProbe": asked | {"periodSeconds": INTERVAL, "failureThreshold": RETRIES},
            }
        ],
        "volumes": list(pod_volumes(spec, {mount.source: mount.source for mount in spec.mounts})),
    }
    if CARDS in container.get("resources", {}).get("limits", {}):
        # Nodes with cards are often kept for those who need them.
        out["tolerations"] = [{"key": CARDS, "operator": "Exists", "effect": "NoSchedule"}]
    return {"metadata": {"labels": dict(labels), "annotations": dict(spec.labels)}, "spec": out}


def _for_pod(served: Served) -> ContainerSpec:
    """The container as a pod has it: a key always, a hub's settings where it fetches, names of the cluster."""
    spec = served.spec
    wanted = (API_KEYS[served.variant.backend], *(HUB_SETTINGS if served.fetched else ()), *spec.passed)
    env = dict(spec.env)
    env |= {name: served.environment[name] for name in _PLAIN if name in spec.passed}
    env[HOSTS] = ",".join([*filter(None, env.get(HOSTS, "").split(",")), spec.name, *CLUSTER_NAMES])
    passed = tuple(one for one in dict.fromkeys(wanted) if one not in _PLAIN)
    return replace(spec, env=tuple(env.items()), passed=passed)
