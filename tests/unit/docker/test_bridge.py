"""The range of the embedded engine's bridge: free of everything that the host routes."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from images.core.errors import EngineUnreachable
from images.docker.embedded import bridge

# eth0: default via 192.0.2.1, 192.0.2.0/24; docker0: 172.17.0.0/16; vpn: 10.208.0.0/12
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t0000D00A\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0
"""


def test_routes_are_read_little_endian() -> None:
    assert bridge.parse_routes(ROUTES) == (
        ("eth0", IPv4Network("0.0.0.0/0")),
        ("eth0", IPv4Network("192.0.2.0/24")),
        ("docker0", IPv4Network("172.17.0.0/16")),
        ("tun0", IPv4Network("10.208.0.0/12")),
    )
    assert bridge.default_device(bridge.parse_routes(ROUTES)) == "eth0"
    assert bridge.default_device(bridge.parse_routes(ROUTES.splitlines()[0])) is None


def test_the_range_avoids_every_route_but_the_default_one() -> None:
    taken = [network for _, network in bridge.parse_routes(ROUTES)]
    chosen = bridge.choose_range(taken)
    assert chosen != bridge.CANDIDATES[0]
    assert chosen in bridge.CANDIDATES
    assert not any(chosen.overlaps(network) for network in taken if network.prefixlen)
    assert bridge.choose_range([]) == bridge.CANDIDATES[0]


def test_a_host_that_routes_all_of_them_is_told() -> None:
    with pytest.raises(EngineUnreachable, match="DOCKER_HOST"):
        bridge.choose_range([IPv4Network("10.0.0.0/8")])


def test_a_name_too_long_for_the_kernel_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="15"):
        bridge.ensure_bridge("cardstock-bridge")
