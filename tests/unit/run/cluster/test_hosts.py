"""hosts.yaml: what it says, and what is said of a wrong one: file, line, key, what would be right."""

from __future__ import annotations

import re

import pytest

from images.core.errors import UsageError
from images.run.cluster.hosts import parse_hosts
from tests.helpers import matrices
from tests.helpers.clusters import CARDS, CPUS


def test_read() -> None:
    hosts = parse_hosts(CARDS)
    assert hosts.head.name == "box1"
    assert [hosts.interface_of(host) for host in hosts.hosts] == ["enp1s0", "eno2"]
    assert [host.slots for host in hosts.hosts] == [8, 8]
    assert [host.engine for host in hosts.hosts] == ["", "ssh://box2"]
    assert hosts.folder_of(hosts.head) == "/srv/Qwen2.5-VL-72B-Instruct"


def test_a_host_without_a_card_takes_one_part() -> None:
    assert [host.slots for host in parse_hosts(CPUS).hosts] == [1, 1]


@pytest.mark.parametrize(
    ("change", "line", "told"),
    [
        (("name: box2", "nme: box2"), 9, "unknown key 'nme'"),
        (("    address: 10.0.0.2\n", ""), 9, "the key 'address' is missing"),
        (("10.0.0.2", "box2.lan"), 10, "'box2.lan' is not an IP address"),
        (("10.0.0.2", "127.0.0.1"), 10, "127.0.0.1 is reached from its own machine only"),
        (("10.0.0.2", "10.0.0.1"), 4, "two hosts have the address 10.0.0.1"),
        (("name: box2", "name: box1"), 4, "two hosts have the name box1"),
        (("name: box2", "name: 'box 2'"), 9, "'box 2' is not of the form"),
        (("interface: eno2", "interface: a-name-of-17-bytes"), 11, "'a-name-of-17-bytes' is not of the form"),
        (("interface: enp1s0\n", ""), 1, "no interface is named for box1"),
        (
            ("5, 6, 7]\n    engine", "5]\n    engine"),
            4,
            "each host must bring as many devices as the others, not box1 8, box2 6",
        ),
        (("6, 7]\n    engine", "6, 6]\n    engine"), 13, "a device is named twice"),
        (("folder: /srv/", "folder: srv/"), 2, "'srv/Qwen2.5-VL-72B-Instruct' is not of the form"),
        (("model: 72b", "port: 80"), 1, "greater than or equal to 1024"),
        (("interface: enp1s0", "interface: enp1s0\ninterface: eth0"), 4, "a key given twice"),
        (("hosts:", "hosts: ["), 5, "not YAML"),
    ],
)
def test_faults(change: tuple[str, str], line: int, told: str) -> None:
    text = CARDS.replace(*change) if change[0] != "name: box2" else change[1].join(CARDS.rsplit(change[0], 1))
    assert text != CARDS
    with pytest.raises(UsageError) as caught:
        parse_hosts(text, "lab.yaml")
    assert told in str(caught.value)
    assert caught.value.where == f"lab.yaml:{line}"


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        parse_hosts(CARDS.replace("devices", "device"))
    assert "nearest: devices" in caught.value.do


def test_one_host_is_no_cluster() -> None:
    with pytest.raises(UsageError) as caught:
        parse_hosts(CARDS[: CARDS.index("  - name: box2")])
    assert "at least two hosts" in caught.value.what
    assert "./inv serve" in caught.value.do


def test_the_example_of_the_documents() -> None:
    text = (matrices.ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    hosts = parse_hosts(block, "docs/cluster.md")
    assert [host.engine for host in hosts.hosts] == ["", "ssh://box2"]
    assert hosts.model == "72b"
