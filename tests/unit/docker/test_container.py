"""A container's forms: what is printed, written and started is the same."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import docker.models.containers  # noqa: TID251 - its own reading of keywords, which refuses those it does not know
import pytest
import yaml
from hypothesis import given

from images.core.errors import UsageError
from images.docker.container_arguments import create_arguments
from images.docker.container_spec import (
    ALL_CARDS,
    NO_CARDS,
    ContainerSpec,
    Gpus,
    Mount,
    PublishedPort,
    check_name,
    check_port,
    read_gpus,
)
from images.docker.container_text import compose, docker_line, docker_words
from tests.helpers.containers import of_arguments, of_compose, of_words, specs

SPEC = ContainerSpec(
    name="web",
    image="an/image:x",
    arguments=("--length", "4096"),
    env=(("A", "b"),),
    passed=("KEY",),
    mounts=(Mount("/data/in", "/in"), Mount("kept", "/cache", read_only=False)),
    ports=(PublishedPort(8000, 9000),),
    gpus=Gpus(2),
    shm=4,
    labels=(("l", "x"),),
    restart="unless-stopped",
)


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


# -- the forms say the same


@given(spec=specs())
def test_all_forms_say_the_same(spec: ContainerSpec) -> None:
    outside = dict.fromkeys(spec.passed[::2], 'it\'s $a "value"')  # the others are not set
    told = of_words(shlex.split(docker_line(spec)), outside)
    assert of_compose(compose(spec), outside) == told
    started = of_arguments(spec.image, create_arguments(spec, {**outside, "OTHER": "x"}))
    assert {**started, "stop_timeout": spec.stop_timeout} == told
    assert (told["dropped"], told["security"]) == (["ALL"], ["no-new-privileges"])


@given(spec=specs())
def test_the_form_is_what_the_value_says(spec: ContainerSpec) -> None:
    told = of_words(docker_words(spec), {})
    entry = spec.entrypoint
    assert told["process"] == (entry is not None, [*(entry or ()), *spec.arguments])
    assert told["env"] == {**dict(spec.env), **dict.fromkeys(spec.passed)}
    assert told["mounts"] == [(one.kind, one.source, one.target, one.read_only) for one in spec.mounts]
    assert told["ports"] == sorted((one.host, one.host_port, one.container_port) for one in spec.ports)
    named = list(spec.gpus.cdi_names) if spec.gpus.cdi else (spec.gpus.count, list(spec.gpus.devices))
    assert told["gpus"] == (None if spec.gpus == NO_CARDS else named)
    same = ("image", "name", "shm", "memory", "network", "address", "restart", "user", "workdir", "healthcheck")
    for key in (*same, "read_only", "stop_timeout"):
        assert told[key] == getattr(spec, key), key
    assert (told["labels"], told["tmpfs"]) == (dict(spec.labels), dict(spec.tmpfs))


def test_in_the_foreground_it_is_the_same_but_does_not_stay() -> None:
    stays, goes = of_words(docker_words(SPEC), {}), of_words(docker_words(SPEC, foreground=True), {})
    assert goes == {**stays, "restart": "no", "remove": True}


def test_it_is_locked_unless_something_is_said() -> None:
    assert docker_line(ContainerSpec("debian")) == (
        "docker run --detach --restart no --read-only --tmpfs /tmp:rw,exec,nosuid,nodev,mode=1777 --cap-drop ALL "
        "--security-opt no-new-privileges --stop-timeout 30 debian"
    )


# -- the docker line


def test_the_docker_line() -> None:
    assert docker_words(SPEC) == [
        "docker", "run", "--detach", "--name", "web", "--restart", "unless-stopped", "--gpus", "2", "--shm-size", "4g",
        "--publish", "127.0.0.1:9000:8000", "--read-only", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--stop-timeout", "30",
        "--mount", "type=bind,source=/data/in,target=/in,readonly", "--mount", "type=volume,source=kept,target=/cache",
        "--env", "A=b", "--env", "KEY", "--label", "l=x", "an/image:x", "--length", "4096",
    ]  # fmt: skip
    assert "[::1]:9000:8000" in docker_words(replace(SPEC, ports=(PublishedPort(8000, 9000, "::1"),)))


def test_docker_reads_several_devices_as_one_word() -> None:
    assert value(docker_words(replace(SPEC, gpus=Gpus(devices=("0", "1")))), "--gpus") == '"device=0,1"'
    assert value(docker_words(replace(SPEC, gpus=ALL_CARDS)), "--gpus") == "all"


@pytest.mark.parametrize(
    ("gpus", "names"),
    [
        (ALL_CARDS, ["nvidia.com/gpu=all"]),
        (Gpus(2), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
        (Gpus(devices=("GPU-1a2b", "0:1")), ["nvidia.com/gpu=GPU-1a2b", "nvidia.com/gpu=0:1"]),
    ],
)
def test_cards_that_an_engine_has_by_cdi(gpus: Gpus, names: list[str]) -> None:
    spec = replace(SPEC, gpus=replace(gpus, cdi=True))
    words = docker_words(spec)
    assert [words[at + 1] for at, word in enumerate(words) if word == "--device"] == names
    assert "--gpus" not in words
    assert create_arguments(spec, {})["device_requests"] == [{"driver": "cdi", "device_ids": names}]
    (device,) = yaml.safe_load(compose(spec))["services"]["web"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "cdi", "device_ids": names, "capabilities": ["gpu"]}


def test_a_path_with_commas_and_quotes_is_one_csv_field() -> None:
    words = docker_words(replace(SPEC, mounts=(Mount('/m/a,b "c":d', "/models"),)))
    assert value(words, "--mount") == 'type=bind,"source=/m/a,b ""c"":d",target=/models,readonly'


def test_an_entry_point_of_several_words() -> None:
    words = docker_words(replace(SPEC, entrypoint=("sh", "-c")))
    assert words[-6:] == ["--entrypoint", "sh", "an/image:x", "-c", "--length", "4096"]
    assert docker_words(replace(SPEC, entrypoint=()))[-5:-2] == ["--entrypoint", "", "an/image:x"]


# -- the compose file


def test_the_compose_file() -> None:
    whole = yaml.safe_load(compose(SPEC))
    assert whole["volumes"] == {"kept": {"name": "kept"}}
    assert whole["services"]["web"] == {
        "image": "an/image:x",
        "container_name": "web",
        "command": ["--length", "4096"],
        "restart": "unless-stopped",
        "ports": [{"target": 8000, "protocol": "tcp", "published": "9000", "host_ip": "127.0.0.1"}],
        "volumes": [
            {"type": "bind", "source": "/data/in", "target": "/in", "read_only": True},
            {"type": "volume", "source": "kept", "target": "/cache"},
        ],
        "environment": {"A": "b", "KEY": None},
        "labels": {"l": "x"},
        "read_only": True,
        "tmpfs": ["/tmp:rw,exec,nosuid,nodev,mode=1777"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": "30s",
        "shm_size": "4gb",
        "deploy": {
            "resources": {"reservations": {"devices": [{"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}]}}
        },
    }


def test_what_is_not_said_is_not_written() -> None:
    bare = yaml.safe_load(compose(ContainerSpec("debian", name="bare")))
    assert set(bare) == {"services"}
    locks = {"read_only", "tmpfs", "cap_drop", "security_opt", "stop_grace_period"}
    assert set(bare["services"]["bare"]) == {"image", "container_name", "restart", "environment", *locks}


def test_a_variable_that_compose_must_have() -> None:
    text = compose(replace(SPEC, env=(("A", "${HOME}"),)), required={"KEY": "make one"})
    assert yaml.safe_load(text)["services"]["web"]["environment"] == {"A": "$${HOME}", "KEY": "${KEY:?make one}"}


# -- docker-py


def test_a_passed_variable_that_is_not_set_is_taken_away_as_by_docker() -> None:
    words = create_arguments(SPEC, {"OTHER": "x"})
    assert words["environment"] == {"A": "b", "KEY": None}
    assert create_arguments(SPEC, {"KEY": "k"})["environment"]["KEY"] == "k"


def test_docker_py_takes_it() -> None:
    spec = replace(SPEC, network="lab", address="10.1.2.3", healthcheck=False)
    words = {"version": "1.43", **create_arguments(spec, {})}
    made: dict[str, Any] = vars(docker.models.containers)["_create_container_args"](words)
    assert made["networking_config"]["EndpointsConfig"] == {"lab": {"IPAMConfig": {"IPv4Address": "10.1.2.3"}}}
    host = made["host_config"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert host["PortBindings"] == {"8000/tcp": [{"HostPort": "9000", "HostIp": "127.0.0.1"}]}
    assert host["Mounts"][1] == {"Type": "volume", "Source": "kept", "Target": "/cache", "ReadOnly": False}
    assert (host["ShmSize"], host["NetworkMode"]) == (4 * 2**30, "lab")


# -- the value


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("10.0.0.7", "http://10.0.0.7:80")],
)
def test_where_a_port_is_reached(host: str, url: str) -> None:
    assert PublishedPort(8000, 80, host).url == url


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("all", ALL_CARDS),
        ("2", Gpus(2)),
        ("none", NO_CARDS),
        ("0", NO_CARDS),
        ("device=0,1", Gpus(devices=("0", "1"))),
        ('"device=1"', Gpus(devices=("1",))),
        ("device=GPU-1a2b-3c", Gpus(devices=("GPU-1a2b-3c",))),
        ("nvidia.com/gpu=all", Gpus(-1, cdi=True)),
        ("nvidia.com/gpu=0,nvidia.com/gpu=GPU-1a2b", Gpus(devices=("0", "GPU-1a2b"), cdi=True)),
        ("device=0:0, MIG-1/2/3", Gpus(devices=("0:0", "MIG-1/2/3"))),
    ],
)
def test_cards_as_docker_takes_them(text: str, found: Gpus) -> None:
    assert read_gpus(text) == found


@pytest.mark.parametrize("text", ["some", "-1", "device=", "device=a", "1.5", "GPU", "device=0;rm"])
def test_cards_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="names no cards"):
        read_gpus(text)


@pytest.mark.parametrize("wrong", ["", "a", "-ab", "a b", "ä1"])
def test_names_that_docker_refuses(wrong: str) -> None:
    assert check_name("a.b-c_1") == "a.b-c_1"
    with pytest.raises(UsageError, match="cannot be a container's name"):
        check_name(wrong)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_are_none(port: int) -> None:
    assert check_port(1) == 1
    with pytest.raises(UsageError, match="is not a port"):
        check_port(port)


def test_mounts_are_read_only_unless_said() -> None:
    assert Mount("/data", "/models") == Mount("/data", "/models", read_only=True)
    assert (Mount("/data", "/models").kind, Mount("weights", "/models").kind) == ("bind", "volume")
