"""What is rendered of a cluster: containers, compose files, a KubeRay manifest."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import yaml

from images.core.errors import NoImageFits
from images.run.cluster.compose import compose_files
from images.run.cluster.containers import create_words
from images.run.cluster.hosts import Hosts, parse_hosts
from images.run.cluster.kuberay import kuberay_manifest
from images.run.cluster.nodes import Node, fitted, make_nodes, on_cpus
from images.run.fit.choose import fit
from tests.helpers.clusters import CARDS, CPUS
from tests.helpers.fits import SM75, ask, model
from tests.helpers.nonempty import nonempty

IMAGE = f"repo/image:{SM75}"


def _nodes(text: str = CARDS, *user: str) -> tuple[Hosts, tuple[Node, ...]]:
    hosts = parse_hosts(text)
    found = fit(ask("72b", "RTX 2080 Ti", 8, nodes=2))
    return hosts, make_nodes(hosts, fitted(hosts, found, IMAGE, user))


def _serve(node: Node) -> list[str]:
    """The words of the server that the head's shell becomes."""
    words = shlex.split(node.command[2])
    return words[words.index("exec") + 1 :]


def _value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_the_head_starts_ray_and_becomes_the_server() -> None:
    _, (head, _) = _nodes()
    assert head.command[:2] == ("sh", "-c")
    start = shlex.split(head.command[2].partition(" && exec ")[0])
    assert start[:3] == ["ray", "start", "--head"]
    assert _value(start, "--node-ip-address") == "10.0.0.1"
    assert _value(start, "--num-gpus") == "8"
    assert json.loads(_value(start, "--resources")) == {"host-box1": 1}
    serve = _serve(head)
    assert _value(serve, "--tensor-parallel-size") == "8"
    assert _value(serve, "--pipeline-parallel-size") == "2"
    assert _value(serve, "--distributed-executor-backend") == "ray"
    assert json.loads(_value(serve, "--mm-processor-kwargs"))["min_pixels"] > 0


def test_a_worker_joins_the_head() -> None:
    _, (_, worker) = _nodes()
    assert worker.command[:4] == ("ray", "start", "--address", "10.0.0.1:6379")
    assert worker.command[-1] == "--block"
    assert worker.env["VLLM_HOST_IP"] == "10.0.0.2"
    assert worker.env["NCCL_SOCKET_IFNAME"] == worker.env["GLOO_SOCKET_IFNAME"] == "eno2"


def test_ray_also_where_vllm_has_a_way_of_its_own() -> None:
    hosts = parse_hosts(CARDS.replace("RTX 2080 Ti", "RTX 3090"))
    found = fit(ask("7b", "RTX 3090", 8, nodes=2, by="cu130-vllm0.25.1-flash-attn-sm86"))
    serve = _serve(make_nodes(hosts, fitted(hosts, found, IMAGE))[0])
    assert "--nnodes" not in serve
    assert _value(serve, "--distributed-executor-backend") == "ray"


def test_the_users_flags_win() -> None:
    serve = _serve(_nodes(CARDS, "--max-model-len 1024")[1][0])
    assert serve.count("--max-model-len") == 1
    assert _value(serve, "--max-model-len") == "1024"


def test_without_cards_a_stage_for_each_host() -> None:
    hosts = parse_hosts(CPUS)
    plan = on_cpus(hosts, model("7b"), hosts.variant, "repo/image:cpu")
    assert _value(list(plan.flags), "--pipeline-parallel-size") == "2"
    small = parse_hosts(CPUS + "".join(f"  - {{name: b{n}, address: 10.78.1.{n}}}\n" for n in range(1, 28)))
    with pytest.raises(NoImageFits) as caught:
        on_cpus(small, model("7b"), hosts.variant, "repo/image:cpu")
    assert "28 layers" in caught.value.cause


def test_compose() -> None:
    hosts, nodes = _nodes()
    first, second = (yaml.safe_load(compose_files(hosts, node)) for node in nodes)
    service = first["services"]["ray"]
    assert service["network_mode"] == "host"
    assert service["shm_size"] == "19gb"
    assert service["read_only"] is True
    assert service["volumes"][0] == {
        "type": "bind", "source": "/srv/Qwen2.5-VL-72B-Instruct", "target": "/models", "read_only": True,
    }  # fmt: skip
    device = service["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["device_ids"] == [str(number) for number in range(8)]
    assert "healthcheck" not in service
    assert second["services"]["ray"]["healthcheck"] == {"disable": True}
    assert second["services"]["ray"]["environment"]["NCCL_SOCKET_IFNAME"] == "eno2"


def test_compose_takes_nothing_but_the_keys_from_outside() -> None:
    text = CARDS + "environment: {NCCL_DEBUG: $HOME}\n"
    hosts, nodes = _nodes(text)
    environment = yaml.safe_load(compose_files(hosts, nodes[0]))["services"]["ray"]["environment"]
    variables = {name for name, value in environment.items() if "${" in value}
    assert variables == {"RAY_AUTH_TOKEN", "VLLM_API_KEY"}
    assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    assert environment["NCCL_DEBUG"] == "$$HOME"
    assert environment["RAY_AUTH_MODE"] == "token"


def test_a_named_network_gives_each_host_its_address() -> None:
    hosts = parse_hosts(CPUS)
    nodes = make_nodes(hosts, on_cpus(hosts, model("7b"), hosts.variant, "repo/image:cpu"))
    whole = yaml.safe_load(compose_files(hosts, nodes[1]))
    assert whole["services"]["ray"]["networks"] == {"cluster": {"ipv4_address": "10.78.0.12"}}
    assert whole["networks"] == {"cluster": {"external": True, "name": "lab"}}
    assert "deploy" not in whole["services"]["ray"]
    assert create_words(hosts, nodes[1], {})["network"] == "lab"


def test_compose_and_the_engine_get_the_same() -> None:
    hosts, nodes = _nodes()
    for node in nonempty(nodes):
        service: dict[str, Any] = yaml.safe_load(compose_files(hosts, node))["services"]["ray"]
        words = create_words(hosts, node, {"RAY_AUTH_TOKEN": "secret", "HOME": "/root"})
        assert words["environment"] == {**node.env, "RAY_AUTH_TOKEN": "secret"}
        assert set(service["environment"]) == {*node.env, *node.passed}
        assert words["name"] == service["container_name"]
        assert words["network"] == service["network_mode"]
        assert words["device_requests"][0]["device_ids"] == [str(number) for number in range(8)]
        assert [mount["Source"] for mount in words["mounts"]] == [mount["source"] for mount in service["volumes"]]


def test_kuberay() -> None:
    hosts, nodes = _nodes()
    cluster, service = yaml.safe_load_all(kuberay_manifest(hosts, nodes))
    assert cluster["kind"] == "RayCluster"
    assert cluster["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    (group,) = cluster["spec"]["workerGroupSpecs"]
    worker = group["template"]["spec"]
    assert (group["replicas"], group["groupName"]) == (1, "box2")
    assert worker["nodeSelector"] == {"kubernetes.io/hostname": "box2"}
    for spec, node in ((head, nodes[0]), (worker, nodes[1])):
        (container,) = spec["containers"]
        assert spec["hostNetwork"] is True
        assert tuple(container["args"]) == node.command
        assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
        given = {one["name"]: one.get("value") for one in container["env"]}
        assert given == {**node.env, **dict.fromkeys(node.passed)}
        assert container["livenessProbe"]["exec"]["command"] == ["ray", "health-check"]
        assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in spec["volumes"]}
    assert head["containers"][0]["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8000}
    assert service["spec"]["selector"]["ray.io/node-type"] == "head"
