"""A bridge of the embedded engine's own, made with the kernel's ioctls: a bare Debian has no ip(8)."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from images.core import EngineUnreachable

ROUTES = Path("/proc/net/route")
INTERFACES = Path("/sys/class/net")
# Private ranges that home routers, clouds and Docker's own pools rarely take first.
CANDIDATES = tuple(IPv4Network(f"10.{n}.0.0/24") for n in (213, 187, 229, 151, 97, 61, 241, 119))
_IFNAME_MAX = 15
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFADDR, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8915, 0x8916, 0x891C
_SIOCBRADDBR, _SIOCBRDELBR, _IFF_UP = 0x89A0, 0x89A1, 1


def parse_routes(text: str) -> tuple[tuple[str, IPv4Network], ...]:
    """Device and network of each line of /proc/net/route (addresses there are little-endian hex)."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        address, mask = (IPv4Address(struct.pack("<I", int(fields[n], 16))) for n in (1, 7))
        found.append((fields[0], IPv4Network(f"{address}/{mask}", strict=False)))
    return tuple(found)


def default_device(routes: Iterable[tuple[str, IPv4Network]]) -> str | None:
    """The device of the default route."""
    return next((device for device, network in routes if network.prefixlen == 0), None)


def choose_range(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps no routed network. Raises EngineUnreachable when all are taken."""
    routed = [network for network in taken if network.prefixlen]
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(network) for network in routed):
            return candidate
    raise EngineUnreachable(
        "no private range is free for the embedded engine's bridge",
        cause="every candidate overlaps a route of this host: " + ", ".join(map(str, CANDIDATES)),
        do="start a Docker engine of your own and set DOCKER_HOST",
    )


def host_mtu() -> int:
    """The MTU (bytes) of the default route's device; 1500 where there is none."""
    device = default_device(parse_routes(ROUTES.read_text(encoding="ascii")))
    path = INTERFACES / (device or "none") / "mtu"
    return int(path.read_text(encoding="ascii")) if path.is_file() else 1500


def _request(name: str, tail: bytes) -> bytes:
    return struct.pack("16s24s", name.encode("ascii"), tail)


def _sockaddr(address: IPv4Address) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, address.packed)


def _flags(control: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _request(name, b""))
    return int(struct.unpack_from("H", answer, 16)[0])


def bridge_address(name: str) -> IPv4Address | None:
    """The address of a bridge that exists; None where it has none or is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control, suppress(OSError):
        answer = fcntl.ioctl(control, _SIOCGIFADDR, _request(name, b""))
        return IPv4Address(answer[20:24])
    return None


def ensure_bridge(name: str) -> None:
    """Make the bridge with an address in a free range and bring it up; one that is there keeps its address.

    Raises EngineUnreachable when the kernel refuses (no bridge support, not root).
    """
    if len(name) > _IFNAME_MAX:
        raise ValueError(f"{name}: an interface name has at most {_IFNAME_MAX} characters")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            if not (INTERFACES / name).exists():
                fcntl.ioctl(control, _SIOCBRADDBR, name.encode("ascii") + b"\0")
            if bridge_address(name) is None:
                routes = parse_routes(ROUTES.read_text(encoding="ascii"))
                network = choose_range(network for _, network in routes)
                first = IPv4Interface((int(network.network_address) + 1, network.prefixlen))
                fcntl.ioctl(control, _SIOCSIFADDR, _request(name, _sockaddr(first.ip)))
                fcntl.ioctl(control, _SIOCSIFNETMASK, _request(name, _sockaddr(first.netmask)))
            flags = struct.pack("H", _flags(control, name) | _IFF_UP)
            fcntl.ioctl(control, _SIOCSIFFLAGS, _request(name, flags))
    except OSError as error:
        raise EngineUnreachable(
            f"the embedded engine's bridge {name} could not be made",
            cause=str(error),
            do="run as root on a kernel with bridge support, or start a Docker engine of your own and set DOCKER_HOST",
        ) from error


def remove_bridge(name: str) -> None:
    """Take the bridge down and away; nothing happens where there is none."""
    if not (INTERFACES / name).exists():
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control, suppress(OSError):
        flags = struct.pack("H", _flags(control, name) & ~_IFF_UP)
        fcntl.ioctl(control, _SIOCSIFFLAGS, _request(name, flags))
        fcntl.ioctl(control, _SIOCBRDELBR, name.encode("ascii") + b"\0")
