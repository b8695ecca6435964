"""Which container is behind an address, and on which cards it runs."""

from __future__ import annotations

from typing import Any

import pytest

from images.cards import LocalCard
from images.docker import ContainerState
from images.matrix import Arch
from images.run.demo import Answering, answering_at

SERVER = "http://127.0.0.1:8000"
CARDS = tuple(
    LocalCard(name, uuid, Arch(8, 9), 24 * 1024**3, index=at)
    for at, (name, uuid) in enumerate([("NVIDIA L4", "GPU-a"), ("NVIDIA L4", "GPU-b"), ("NVIDIA L40S", "GPU-c")])
)
ALL = [{"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=all"]}]


def container(
    requests: object = ALL, *, port: str = "8000", image: str = "cu130-x", archs: str = "8.9", status: str = "running"
) -> ContainerState:
    """As an engine's inspect has it."""
    labels = {"dev.cardstock.variant": image, "dev.cardstock.archs": archs} if image else {}
    attributes: dict[str, Any] = {
        "Config": {"Labels": labels},
        "State": {"Status": status},
        "HostConfig": {
            "PortBindings": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}], "9/tcp": None},
            "DeviceRequests": requests,
        },
    }
    return ContainerState("one", attributes)


@pytest.mark.parametrize(
    ("requests", "card"),
    [
        (ALL, "2 x NVIDIA L4, NVIDIA L40S"),
        ([{"Count": -1, "DeviceIDs": None}], "2 x NVIDIA L4, NVIDIA L40S"),
        ([{"Count": 1, "DeviceIDs": None}], "NVIDIA L4"),
        ([{"Count": 0, "DeviceIDs": ["GPU-c"]}], "NVIDIA L40S"),
        ([{"Count": 0, "DeviceIDs": ["nvidia.com/gpu=GPU-c", "nvidia.com/gpu=0"]}], "NVIDIA L4, NVIDIA L40S"),
        (None, "2 x NVIDIA L4, NVIDIA L40S"),  # by NVIDIA's runtime: all of them
        ([{"Count": 0, "DeviceIDs": ["MIG-x"]}], ""),
    ],
)
def test_the_cards_that_a_container_was_given(requests: object, card: str) -> None:
    assert answering_at(SERVER, [container(requests)], CARDS) == Answering("cu130-x", card)


def test_an_image_for_the_cpu_runs_on_it() -> None:
    assert answering_at(SERVER, [container(None, image="cpu-x", archs="")], CARDS) == Answering("cpu-x", "the CPU")


@pytest.mark.parametrize(
    "other",
    [container(port="8001"), container(image=""), container(status="exited"), ContainerState("bare", {})],
)
def test_a_container_that_is_not_behind_it(other: ContainerState) -> None:
    assert answering_at(SERVER, [other], CARDS) == Answering()
    assert answering_at(SERVER, [other, container()], CARDS).image == "cu130-x"


@pytest.mark.parametrize("server", ["http://10.0.0.7:8000", "https://qwen.example.com"])
def test_of_a_server_elsewhere_nothing_is_known(server: str) -> None:
    assert answering_at(server, [container()], CARDS) == Answering()


def test_an_address_without_a_port() -> None:
    assert answering_at("http://localhost", [container(port="80")], CARDS).image == "cu130-x"
