"""Any container, and each of its forms read back by the rules of the program that takes it, to one normal form."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml
from hypothesis import strategies as st

from images.docker.container_spec import ALL_CARDS, NO_CARDS, ContainerSpec, Gpus, Mount, PublishedPort

Normal = dict[str, Any]

# What shells, CSV, YAML, compose and Kubernetes treat specially, and any other letter.
SIGNS = st.sampled_from(list("a1 $\"'\\,:=;#{}[]()-~&*!|>%@`é\u2028"))
LETTERS = st.one_of(SIGNS, st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")))
TEXT = st.one_of(st.text(LETTERS, max_size=12), st.sampled_from(["no", "y", "1e3", "0o17", "null", "${HOME}", "$(A)"]))
LINES = st.one_of(TEXT, st.text(st.one_of(SIGNS, st.just("\n")), max_size=12))
PATH = st.text(LETTERS, min_size=1, max_size=12).map(lambda text: f"/{text}")
NAME = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,12}", fullmatch=True)
VARIABLE = st.from_regex(r"[A-Z_][A-Z0-9_]{0,6}", fullmatch=True)
KEY = st.from_regex(r"[a-z][a-z0-9.-]{0,9}", fullmatch=True)
MOUNTS = st.lists(
    st.builds(Mount, st.one_of(PATH, NAME), PATH, st.booleans()), max_size=3, unique_by=lambda mount: mount.target
)
HOSTS = st.sampled_from(["127.0.0.1", "::1", "10.0.0.7", "fe80::1", "0.0.0.0", ""])
PORTS = st.builds(PublishedPort, st.integers(1, 65535), st.integers(0, 65535), HOSTS)
DEVICES = st.lists(st.sampled_from(["0", "1", "0:0", "GPU-1a2b", "MIG-1/2/3"]), min_size=1, max_size=3, unique=True)
ASKED = st.one_of(st.sampled_from([ALL_CARDS, Gpus(1), Gpus(8)]), DEVICES.map(lambda names: Gpus(devices=tuple(names))))
GPUS = st.one_of(st.just(NO_CARDS), ASKED, ASKED.map(lambda gpus: replace(gpus, cdi=True)))
NETWORKS = st.one_of(
    st.tuples(st.sampled_from(["", "none", "host", "bridge"]), st.just("")),
    st.tuples(st.just("lab"), st.sampled_from(["", "10.78.0.11", "fd00::11"])),
)


@st.composite
def specs(draw: st.DrawFn) -> ContainerSpec:
    """Any container that has a name."""
    variables = draw(st.lists(VARIABLE, max_size=5, unique=True))
    passed = draw(st.integers(0, len(variables)))
    network, address = draw(NETWORKS)
    word = st.text(LETTERS, min_size=1, max_size=8)
    return ContainerSpec(
        image=draw(st.sampled_from(["debian", "host.example:5000/a/b:x", f"a@sha256:{'0' * 64}"])),
        arguments=tuple(draw(st.lists(LINES, max_size=3))),
        name=draw(NAME),
        entrypoint=draw(st.one_of(st.none(), st.lists(word, max_size=2).map(tuple))),
        env=tuple((name, draw(LINES)) for name in variables[passed:]),
        passed=tuple(variables[:passed]),
        mounts=tuple(draw(MOUNTS)),
        ports=tuple(draw(st.lists(PORTS, max_size=3, unique=True))),
        gpus=draw(GPUS),
        shm=draw(st.integers(0, 64)),
        memory=draw(st.sampled_from([0, 2**30, 123456789])),
        network=network,
        address=address,
        labels=tuple(draw(st.dictionaries(KEY, LINES, max_size=3)).items()),
        restart=draw(st.sampled_from(["no", "unless-stopped", "on-failure"])),
        user=draw(st.sampled_from(["", "10001:10001", "nobody"])),
        workdir=draw(st.one_of(st.just(""), PATH)),
        healthcheck=draw(st.booleans()),
        read_only=draw(st.booleans()),
        tmpfs=draw(st.sampled_from([(), (("/tmp", "rw,exec,mode=1777"),), (("/tmp", "rw"), ("/a b$", "ro,uid=1"))])),
        stop_timeout=draw(st.integers(1, 99)),
    )


def of_words(words: list[str], outside: Mapping[str, str]) -> Normal:
    """`docker run`, as its CLI takes it: flags up to the image, then the command."""
    rest, given = list(words[2:]), dict[str, list[str]]()
    while rest[0].startswith("--"):
        flag = rest.pop(0)
        alone = flag in ("--rm", "--detach", "--read-only", "--no-healthcheck")
        given.setdefault(flag, []).append("" if alone else rest.pop(0))
    one = {flag: values[0] for flag, values in given.items()}
    entrypoint = one.get("--entrypoint")
    pairs = [text.partition("=") for text in given.get("--env", [])]
    return {
        "image": rest[0],
        "process": (entrypoint is not None, ([entrypoint] if entrypoint else []) + rest[1:]),
        "name": one.get("--name", ""),
        "env": {name: value if equals else outside.get(name) for name, equals, value in pairs},
        "mounts": [_csv_mount(text) for text in given.get("--mount", [])],
        "ports": sorted(_port(text) for text in given.get("--publish", [])),
        "gpus": given.get("--device") or (_gpus_word(one["--gpus"]) if "--gpus" in one else None),
        "shm": int(one.get("--shm-size", "0g").removesuffix("g")),
        "memory": int(one.get("--memory", 0)),
        "swap": int(one.get("--memory-swap", 0)),
        "network": one.get("--network", ""),
        "address": one.get("--ip", one.get("--ip6", "")),
        "labels": {text.partition("=")[0]: text.partition("=")[2] for text in given.get("--label", [])},
        "restart": one.get("--restart", "no"),
        "remove": "--rm" in one,
        "user": one.get("--user", ""),
        "workdir": one.get("--workdir", ""),
        "healthcheck": "--no-healthcheck" not in one,
        "read_only": "--read-only" in one,
        "tmpfs": {text.partition(":")[0]: text.partition(":")[2] for text in given.get("--tmpfs", [])},
        "dropped": given.get("--cap-drop", []),
        "security": given.get("--security-opt", []),
        "stop_timeout": int(one["--stop-timeout"]),
    }


def _csv_mount(text: str) -> tuple[str, str, str, bool]:
    (row,) = csv.reader([text])
    fields = {field.partition("=")[0]: field.partition("=")[2] for field in row}
    return fields["type"], fields["source"], fields["target"], "readonly" in fields


def _port(text: str) -> tuple[str, int, int]:
    host, published, inside = text.rsplit(":", 2)
    return host.removeprefix("[").removesuffix("]"), int(published or 0), int(inside)


def _gpus_word(text: str) -> tuple[int, list[str]]:
    """docker reads it as CSV: a count, or one field device=, whose value is split at its commas."""
    ((field,),) = csv.reader([text])
    if field.startswith("device="):
        return 0, field.removeprefix("device=").split(",")
    return (-1 if field == "all" else int(field)), []


def of_compose(text: str, outside: Mapping[str, str]) -> Normal:
    """A compose file, its texts with variables put in as compose does."""
    whole = yaml.safe_load(text)
    ((name, raw),) = whole["services"].items()
    service = interpolated(raw, outside)
    assert name == service["container_name"]
    named = {mount["source"] for mount in service.get("volumes", []) if mount["type"] == "volume"}
    assert whole.get("volumes", {}) == {source: {"name": source} for source in named}
    networks = service.get("networks", {})
    assert whole.get("networks", {}) == {one: {"external": True, "name": one} for one in networks}
    devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    entrypoint = service.get("entrypoint")
    return {
        "image": service["image"],
        "process": (entrypoint is not None, (entrypoint or []) + service.get("command", [])),
        "name": name,
        "env": {key: outside.get(key) if value is None else value for key, value in service["environment"].items()},
        "mounts": [
            (m["type"], m["source"], m["target"], m.get("read_only", False)) for m in service.get("volumes", [])
        ],
        "ports": sorted(
            (p.get("host_ip", ""), int(p.get("published", 0)), p["target"]) for p in service.get("ports", [])
        ),
        "gpus": _device(devices[0]) if devices else None,
        "shm": int(service.get("shm_size", "0gb").removesuffix("gb")),
        "memory": int(service.get("mem_limit", 0)),
        "swap": int(service.get("memswap_limit", 0)),
        "network": next(iter(networks), service.get("network_mode", "")),
        "address": "".join(value for one in networks.values() for value in (one or {}).values()),
        "labels": service.get("labels", {}),
        "restart": service["restart"],
        "remove": False,
        "user": service.get("user", ""),
        "workdir": service.get("working_dir", ""),
        "healthcheck": not service.get("healthcheck", {}).get("disable", False),
        "read_only": service.get("read_only", False),
        "tmpfs": {text.partition(":")[0]: text.partition(":")[2] for text in service.get("tmpfs", [])},
        "dropped": service["cap_drop"],
        "security": [one.removesuffix(":true") for one in service["security_opt"]],
        "stop_timeout": int(service["stop_grace_period"].removesuffix("s")),
    }


def interpolated(value: Any, outside: Mapping[str, str]) -> Any:
    """Compose: $$ is a dollar, ${NAME:?told} a variable that must be set; no other dollar may be there."""

    def variable(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else outside[match[1]]

    if isinstance(value, str):
        assert "$" not in re.sub(r"\$\$|\$\{[A-Z_]+:\?[^}]*\}", "", value)
        return re.sub(r"\$\$|\$\{([A-Z_]+):\?[^}]*\}", variable, value)
    if isinstance(value, dict):
        return {key: interpolated(below, outside) for key, below in value.items()}
    return [interpolated(below, outside) for below in value] if isinstance(value, list) else value


def _device(device: Mapping[str, Any]) -> tuple[int, list[str]] | list[str]:
    assert device["capabilities"] == ["gpu"]
    if device["driver"] == "cdi":  # by name alone: a count would be no part of it
        assert set(device) == {"driver", "device_ids", "capabilities"}
        return list(device["device_ids"])
    count = device.get("count", 0)
    return (-1 if count == "all" else count), device.get("device_ids", [])


def of_arguments(image: str, words: Mapping[str, Any]) -> Normal:
    """docker-py's keywords. It cannot be told the stop timeout."""
    config = (words["networking_config"] or {}).get(words["network"]) or {}
    entrypoint, requests = words["entrypoint"], words["device_requests"]
    return {
        "image": image,
        "process": (entrypoint is not None, (entrypoint or []) + words["command"]),
        "name": words["name"],
        "env": words["environment"],
        "mounts": [(m["Type"], m["Source"], m["Target"], m["ReadOnly"]) for m in words["mounts"]],
        "ports": sorted(
            (host, port or 0, int(inside.removesuffix("/tcp")))
            for inside, bindings in words["ports"].items()
            for host, port in bindings
        ),
        "gpus": _request(requests[0]) if requests else None,
        "shm": int((words["shm_size"] or "0g").removesuffix("g")),
        "memory": words["mem_limit"] or 0,
        "swap": words["memswap_limit"] or 0,
        "network": words["network"] or "",
        "address": "".join(config.get("IPAMConfig", {}).values()),
        "labels": words["labels"],
        "restart": words["restart_policy"]["Name"],
        "remove": False,
        "user": words["user"] or "",
        "workdir": words["working_dir"] or "",
        "healthcheck": words["healthcheck"] != {"test": ["NONE"]},
        "read_only": words["read_only"],
        "tmpfs": words["tmpfs"],
        "dropped": words["cap_drop"],
        "security": words["security_opt"],
    }


def _request(request: Mapping[str, Any]) -> tuple[int, list[str]] | list[str]:
    """The engine takes a request of the driver "cdi" by its names (moby daemon/devices.go), another by capabilities."""
    if request.get("driver") == "cdi":
        assert set(request) == {"driver", "device_ids"}
        return list(request["device_ids"])
    assert request["capabilities"] == [["gpu"]]
    return request.get("count", 0), request.get("device_ids", [])


def of_pod(spec: Mapping[str, Any], outside: Mapping[str, str]) -> Normal:
    """A pod of one container: what Kubernetes can say of the same. A docker volume is the pod's own folder there."""
    (container,) = spec["containers"]
    places = {one["name"]: one for one in spec["volumes"]}
    assert len(places) == len(spec["volumes"])
    mounted = [(places[one["name"]], one["mountPath"], one.get("readOnly", False)) for one in container["volumeMounts"]]
    assert {place["name"] for place, _, _ in mounted} == set(places)
    locked = container["securityContext"]
    return {
        "image": container["image"],
        "process": (False, [expanded(word) for word in container["args"]]),
        "env": {
            one["name"]: expanded(one["value"]) if "value" in one else outside.get(one["name"])
            for one in container["env"]
        },
        "binds": [(place["hostPath"]["path"], path, only) for place, path, only in mounted if "hostPath" in place],
        "own": sorted(path for place, path, _ in mounted if place.get("emptyDir") == {}),
        "cards": container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0),
        "memory": container.get("resources", {}).get("limits", {}).get("memory", 0),
        "shm": [
            int(place["emptyDir"]["sizeLimit"].removesuffix("Gi"))
            for place, path, _ in mounted
            if path == "/dev/shm" and place["emptyDir"]["medium"] == "Memory"
        ],
        "read_only": locked["readOnlyRootFilesystem"],
        "dropped": locked["capabilities"]["drop"],
        "security": [] if locked["allowPrivilegeEscalation"] else ["no-new-privileges"],
        "stop_timeout": spec["terminationGracePeriodSeconds"],
    }


def expanded(text: str) -> str:
    """Kubernetes (third_party/forked/golang/expansion): $$ is a dollar; $(NAME) would be a variable's value."""
    assert not re.search(r"\$\(", text.replace("$$", "")), "a variable would be put in"
    return text.replace("$$", "$")
