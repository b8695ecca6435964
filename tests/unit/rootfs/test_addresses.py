"""Which addresses are public, and names that are looked up within a time."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import addresses  # type: ignore[import-not-found,unused-ignore]

PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111",
          "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]  # fmt: skip
PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.1.2.3", "127.0.0.1", "127.255.255.254", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "100.127.255.255", "168.63.129.16",
    "192.0.0.1", "192.0.0.9", "192.0.0.170", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "64:ff9b:1::808:808", "100::1",
    "2001::1", "2001:0:7f00:1::", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1",
    "3fff::1", "5f00::1", "4000::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1",
    "ff02::1", "ff0e::1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1", "2606:4700::1%eth0",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert addresses.is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_all_others_are_not(address: str) -> None:
    assert not addresses.is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_inside_of_an_ipv6_one(address: ipaddress.IPv4Address) -> None:
    public = addresses.is_public(str(address))
    number = int(address)
    for carrier in ("::ffff:0:0", "64:ff9b::"):
        carried = ipaddress.IPv6Address(int(ipaddress.IPv6Address(carrier)) + number)
        assert addresses.is_public(str(carried)) is public
    if not address.is_global:
        assert not public, "never looser than Python's own tables"


@given(st.ip_addresses(v=6))
def test_no_address_outside_of_what_is_given_out_is_public(address: ipaddress.IPv6Address) -> None:
    if addresses.is_public(str(address)):
        assert address.is_global
        assert str(address).startswith(("2", "3", "::ffff:", "64:ff9b::"))


def test_what_is_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        addresses.is_public("localhost")


def told(*found: str) -> Any:
    return lambda *_, **__: [(2, 1, 6, "", (address, 80)) for address in found]


def test_a_name_has_its_addresses_once_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", told("1.1.1.1", "1.1.1.1", *(f"8.8.8.{n}" for n in range(20))))
    found = addresses.resolve("example.org", 80, 5)
    assert found[:2] == ["1.1.1.1", "8.8.8.0"] and len(found) == addresses.MOST_ADDRESSES


def test_what_the_resolver_says_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(socket.gaierror, match="not known"):
        addresses.resolve("example.org", 80, 5)


def test_a_resolver_that_hangs_holds_nobody_and_no_more_threads_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    hold, asked = threading.Event(), []

    def hangs(*_: Any, **__: Any) -> Any:
        asked.append(1)
        hold.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(addresses, "_lookups", threading.BoundedSemaphore(2))
    try:
        for _ in range(4):
            with pytest.raises(TimeoutError):
                addresses.resolve("example.org", 80, 0.02)
        assert len(asked) == 2
    finally:
        hold.set()
    monkeypatch.setattr(socket, "getaddrinfo", told("1.1.1.1"))
    assert addresses.resolve("example.org", 80, 5) == ["1.1.1.1"], "their places are given back"
