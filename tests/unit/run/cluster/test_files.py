"""What is rendered of a cluster: containers, compose files, a KubeRay manifest."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from images.core.errors import NoImageFits
from images.docker.container_arguments import create_arguments
from images.docker.container_text import docker_words
from images.run.cluster.compose import compose_file
from images.run.cluster.hosts import Hosts, parse_hosts
from images.run.cluster.kuberay import kuberay_manifest
from images.run.cluster.nodes import ClusterPlan, Node, fitted, make_nodes, on_cpus
from images.run.fit.choose import fit
from images.run.fit.parallel import Split
from tests.helpers.clusters import CARDS, CPUS
from tests.helpers.containers import LINES, PATH, of_arguments, of_compose, of_pod, of_words
from tests.helpers.fits import SM75, ask, model
from tests.helpers.kubernetes import pod_faults
from tests.helpers.nonempty import nonempty

IMAGE = f"repo/image:{SM75}"


def _nodes(text: str = CARDS, *user: str) -> tuple[Hosts, tuple[Node, ...]]:
    hosts = parse_hosts(text)
    found = fit(ask("72b", "RTX 2080 Ti", 8, nodes=2))
    return hosts, make_nodes(hosts, fitted(hosts, found, IMAGE, user))


def _service(text: str) -> dict[str, Any]:
    """The one service of a compose file."""
    ((_, service),) = yaml.safe_load(text)["services"].items()
    return dict(service)


def _serve(node: Node) -> list[str]:
    """The words of the server that the head's shell becomes."""
    words = shlex.split(node.spec.arguments[2])
    return words[words.index("exec") + 1 :]


def _value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_the_head_starts_ray_and_becomes_the_server() -> None:
    _, (head, _) = _nodes()
    assert head.spec.arguments[:2] == ("sh", "-c")
    start = shlex.split(head.spec.arguments[2].partition(" && exec ")[0])
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
    assert worker.spec.arguments[:4] == ("ray", "start", "--address", "10.0.0.1:6379")
    assert worker.spec.arguments[-1] == "--block"
    assert dict(worker.spec.env)["VLLM_HOST_IP"] == "10.0.0.2"
    assert dict(worker.spec.env)["NCCL_SOCKET_IFNAME"] == dict(worker.spec.env)["GLOO_SOCKET_IFNAME"] == "eno2"


def test_ray_also_where_vllm_has_a_way_of_its_own() -> None:
    hosts = parse_hosts(CARDS.replace("RTX 2080 Ti", "RTX 3090"))
    found = fit(ask("7b", "RTX 3090", 8, nodes=2, by="cu130-vllm0.33.0-flash-attn-sm86"))
    serve = _serve(make_nodes(hosts, fitted(hosts, found, IMAGE))[0])
    assert "--nnodes" not in serve
    assert _value(serve, "--distributed-executor-backend") == "ray"


def test_a_clusters_server_captures_the_sizes_that_its_requests_use() -> None:
    hosts = parse_hosts(CARDS.replace("RTX 2080 Ti", "RTX 3090"))
    found = fit(ask("7b", "RTX 3090", 8, nodes=2, by="cu130-vllm0.33.0-flash-attn-sm86"))
    nodes = make_nodes(hosts, fitted(hosts, found, IMAGE))
    serve = _serve(nodes[0])
    at = serve.index("--cudagraph-capture-sizes")
    assert serve[at + 1 : at + 4] == ["1", "2", "4"] and str(found.load.seqs) in serve[at + 4 :]
    # Each card would decide by itself whether a kept plan holds: several keep none.
    assert all("VLLM_ENABLE_STARTUP_PLAN" not in dict(node.spec.env) for node in nodes)
    manifest = kuberay_manifest(hosts, nodes)
    assert "--cudagraph-capture-sizes 1 2 4" in manifest and "--cudagraph-capture-sizes 1 2 4" in compose_file(nodes[0])
    more = _serve(make_nodes(hosts, fitted(hosts, found, IMAGE, ["--max-num-seqs 128"]))[0])
    assert "--cudagraph-capture-sizes" not in more


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
    _, nodes = _nodes()
    service, second = (_service(compose_file(node)) for node in nodes)
    assert service["network_mode"] == "host"
    assert service["shm_size"] == "19gb"
    assert service["read_only"] is True
    assert service["volumes"][0] == {
        "type": "bind", "source": "/srv/Qwen2.5-VL-72B-Instruct", "target": "/models", "read_only": True,
    }  # fmt: skip
    device = service["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["device_ids"] == [str(number) for number in range(8)]
    assert "healthcheck" not in service
    assert second["healthcheck"] == {"disable": True}
    assert second["environment"]["NCCL_SOCKET_IFNAME"] == "eno2"


def test_compose_takes_nothing_but_the_keys_from_outside() -> None:
    text = CARDS + "environment: {NCCL_DEBUG: $HOME}\n"
    _, nodes = _nodes(text)
    environment = _service(compose_file(nodes[0]))["environment"]
    outside = {name for name, value in environment.items() if value is None or "${" in value}
    assert outside == {"RAY_AUTH_TOKEN", "VLLM_API_KEY"}
    assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?") and environment["VLLM_API_KEY"] is None
    assert environment["NCCL_DEBUG"] == "$$HOME"
    assert environment["RAY_AUTH_MODE"] == "token"


def test_a_named_network_gives_each_host_its_address() -> None:
    hosts = parse_hosts(CPUS)
    nodes = make_nodes(hosts, on_cpus(hosts, model("7b"), hosts.variant, "repo/image:cpu"))
    whole = yaml.safe_load(compose_file(nodes[1]))
    (service,) = whole["services"].values()
    assert service["networks"] == {"lab": {"ipv4_address": "10.78.0.12"}}
    assert whole["networks"] == {"lab": {"external": True, "name": "lab"}}
    assert "deploy" not in service
    assert create_arguments(nodes[1].spec, {})["network"] == "lab"


def test_a_host_that_gives_cards_by_cdi_is_asked_so_in_its_file() -> None:
    _, nodes = _nodes(CARDS.replace("    engine: ssh://box2\n", "    engine: ssh://box2\n    cdi: true\n"))
    plain, by_cdi = (_service(compose_file(node))["deploy"]["resources"]["reservations"]["devices"] for node in nodes)
    assert plain[0]["driver"] == "nvidia" and by_cdi[0]["driver"] == "cdi"
    assert by_cdi[0]["device_ids"] == [f"nvidia.com/gpu={at}" for at in range(8)]


@given(value=LINES, flag=LINES, folder=PATH, gpus=st.booleans(), key=st.booleans(), cdi=st.booleans())
def test_every_form_of_a_hosts_container_says_the_same(
    value: str, flag: str, folder: str, gpus: bool, key: bool, cdi: bool
) -> None:
    hosts = parse_hosts(CARDS if gpus else CPUS)
    by = tuple(host.model_copy(update={"cdi": cdi}) for host in hosts.hosts)
    hosts = hosts.model_copy(update={"hosts": by})
    hosts = hosts.model_copy(update={"environment": {"OWN": value}, "folder": folder, "network": ""})
    plan = ClusterPlan(IMAGE, SM75, Split(1, 2), ("--served-model-name", "m", "--own", flag), 2, "m")
    nodes = make_nodes(hosts, plan)
    outside = {"RAY_AUTH_TOKEN": "secret", **({"VLLM_API_KEY": "k$"} if key else {})}
    for node, pod in nonempty(zip(nodes, _pods(kuberay_manifest(hosts, nodes)), strict=True)):
        spec = node.spec
        started = of_arguments(spec.image, create_arguments(spec, outside)) | {"stop_timeout": spec.stop_timeout}
        assert of_compose(compose_file(node), outside) == of_words(docker_words(spec), outside) == started
        there = of_pod(pod, outside)
        same = ("image", "process", "env", "read_only", "dropped", "security", "stop_timeout")
        assert {name: there[name] for name in same} == {name: started[name] for name in same}
        assert there["binds"] == [mount[1:] for mount in started["mounts"] if mount[0] == "bind"]
        assert there["own"] == ["/cache", *started["tmpfs"]]
        names = started["gpus"] if cdi else (started["gpus"] or (0, []))[1]  # a CDI request is its names alone
        assert there["cards"] == len(names or []) == len(node.host.devices)
        assert there["shm"] == [started["shm"]]
        assert there["memory"] == started["memory"] == started["swap"]
        assert pod["hostNetwork"] and started["network"] == "host"


def _pods(manifest: str) -> list[dict[str, Any]]:
    cluster, _ = yaml.safe_load_all(manifest)
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


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
        assert tuple(container["args"]) == node.spec.arguments
        assert container["resources"]["limits"] == {"nvidia.com/gpu": 8, "memory": node.spec.memory}
        given = {one["name"]: one.get("value") for one in container["env"]}
        assert given == {**dict(node.spec.env), **dict.fromkeys(node.spec.passed)}
        assert pod_faults(spec) == [] and pod_faults({**spec, "hostnetwork": True}) != []
        assert spec["enableServiceLinks"] is spec["automountServiceAccountToken"] is False
        assert container["livenessProbe"]["exec"]["command"] == ["ray", "health-check"]
        assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in spec["volumes"]}
    assert head["containers"][0]["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8000}
    assert service["spec"]["selector"]["ray.io/node-type"] == "head"
