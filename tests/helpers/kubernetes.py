"""What a cluster says to a manifest: by Kubernetes' own schemas, and of names that belong together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import jsonschema

from tests.golden.make_kubernetes_schemas import FOLDER, VERSIONS

_KINDS = {
    ("apps/v1", "Deployment"): "deployment-apps-v1",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaim-v1",
    ("v1", "Service"): "service-v1",
}
_POD = "io.k8s.api.core.v1.PodSpec"
# RFC 1123: labels of names, and values of labels.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


@cache
def _recorded(version: str) -> Mapping[str, Any]:
    return dict(json.loads((FOLDER / f"v{version}.json").read_text(encoding="utf-8")))


def faults(document: Mapping[str, Any]) -> list[str]:
    """What the schemas of the oldest and the newest version refuse of a Deployment, a Service or a claim."""
    kind = _KINDS.get((document["apiVersion"], document["kind"]))
    if kind is None:
        return [f"no schema of a {document['kind']} of {document['apiVersion']}"]
    return [fault for version in VERSIONS for fault in _refused(document, _recorded(version)["kinds"][kind], version)]


def pod_faults(pod: Mapping[str, Any]) -> list[str]:
    """The same of a pod's spec."""
    return [fault for version in VERSIONS for fault in _refused(pod, {"$ref": f"#/$defs/{_POD}"}, version)]


def _refused(value: Mapping[str, Any], schema: Mapping[str, Any], version: str) -> Iterator[str]:
    whole = {**schema, "$defs": _recorded(version)["$defs"]}
    for error in jsonschema.Draft202012Validator(whole).iter_errors(value):
        yield f"{version}: {error.json_path}: {error.message[:200]}"


def unrelated(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What no schema sees: names that name nothing, labels that do not meet, what "restricted" pods may not have."""
    by_kind = {one["kind"]: one for one in documents}
    deployment, service = by_kind["Deployment"], by_kind["Service"]
    for one in documents:
        if not _NAME.fullmatch(one["metadata"]["name"]):
            yield f"{one['kind']} cannot be called {one['metadata']['name']}"
        if wrong := [value for value in one["metadata"]["labels"].values() if not _VALUE.fullmatch(value)]:
            yield f"labels cannot be {wrong}"
    template = deployment["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        if not selector.items() <= labels.items():
            yield f"{selector} selects no pod of {labels}"
    (container,) = pod["containers"]
    ports = {one["name"] for one in container["ports"]}
    asked = [one["targetPort"] for one in service["spec"]["ports"]]
    asked += [container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    yield from (f"no port is called {name}" for name in asked if name not in ports)
    volumes = [one["name"] for one in pod["volumes"]]
    mounted = [one["name"] for one in container["volumeMounts"]]
    if sorted(volumes) != sorted(mounted) or len(set(volumes)) != len(volumes):
        yield f"volumes {volumes} are mounted as {mounted}"
    claims = {one["metadata"]["name"] for one in documents if one["kind"] == "PersistentVolumeClaim"}
    used = {one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one}
    if used != claims:
        yield f"claims {claims} are used as {used}"
    yield from _not_restricted(pod, container)


def _not_restricted(pod: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[str]:
    """Pod Security Standards, "restricted" (kubernetes.io/docs/concepts/security/pod-security-standards), and more."""
    wanted = {
        "runAsNonRoot": pod["securityContext"].get("runAsNonRoot") is True,
        "runAsUser": pod["securityContext"].get("runAsUser", 0) != 0,
        "seccompProfile": pod["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation": container["securityContext"].get("allowPrivilegeEscalation") is False,
        "capabilities": container["securityContext"].get("capabilities") == {"drop": ["ALL"]},
        "readOnlyRootFilesystem": container["securityContext"].get("readOnlyRootFilesystem") is True,
        "automountServiceAccountToken": pod.get("automountServiceAccountToken") is False,
        "enableServiceLinks": pod.get("enableServiceLinks") is False,
        "host namespaces": not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
        "volumes": all(set(one) & {"emptyDir", "persistentVolumeClaim"} for one in pod["volumes"]),
    }
    yield from (f"not restricted: {name}" for name, held in wanted.items() if not held)
