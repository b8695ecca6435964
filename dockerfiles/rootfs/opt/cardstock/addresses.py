"""Addresses that may be fetched from, and names looked up within a time. Standard library only.

A server that fetches what strangers name can be made to ask its own network. Python's ``ipaddress`` alone does not
prevent that: 3.11.7 takes 192.0.0.192 and 64:ff9b:1::/48 for public, Debian's 3.11.2 fec0::/10. So what is public is
said here as well: both must agree. Sources: IANA's registries of special addresses, of 2025-10; clouds' documents.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from queue import Empty, SimpleQueue

MOST_LOOKUPS = 16  # at once; a lookup cannot be interrupted, so one that hangs keeps its thread until it ends
MOST_ADDRESSES = 8  # of one name

_V4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's own services, at an address that is public by its number
    )
]  # fmt: skip
# Of IPv6, only what is given out for the open Internet: not fc00::/7, fe80::/10, fec0::/10, 64:ff9b:1::/48, 100::/64, …
_V6_GLOBAL = ipaddress.IPv6Network("2000::/3")
_V6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # for protocols: Teredo, which carries an IPv4 address, ORCHID, benchmarks
        "2001:db8::/32", "2002::/16",  # documents; 6to4, which carries an IPv4 address to any relay
        "2620:4f:8000::/48", "3fff::/20",
    )
]  # fmt: skip
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)  # upper half of an interface's number whose lower half is an IPv4 address


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open Internet, also the IPv4 one that an IPv6 one carries.

    Raises ValueError for what is no address.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not any(found in network for network in _V4)
    if found.ipv4_mapped is not None:
        return is_public(str(found.ipv4_mapped))
    lower = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if found in _NAT64:
        return is_public(str(lower))
    if (int(found) >> 32) & 0xFFFFFFFF in _ISATAP and not is_public(str(lower)):
        return False
    return "%" not in address and found.is_global and found in _V6_GLOBAL and not any(found in net for net in _V6)


_lookups = threading.BoundedSemaphore(MOST_LOOKUPS)


def resolve(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of ``host``, best first, at most `MOST_ADDRESSES`.

    Raises TimeoutError after ``seconds``, OSError where there is none, ValueError for what is no name.
    """
    deadline = time.monotonic() + seconds
    if not _lookups.acquire(timeout=max(0.0, seconds)):
        raise TimeoutError("too many names are being looked up")
    answers: SimpleQueue[list[str] | Exception] = SimpleQueue()

    def look() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(info[4][0]) for info in found)))
        except (OSError, ValueError) as error:
            answers.put(error)
        finally:
            _lookups.release()

    try:
        threading.Thread(target=look, name="look up", daemon=True).start()
    except RuntimeError as error:  # no thread is to be had
        _lookups.release()
        raise OSError(str(error)) from error
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        raise TimeoutError(f"looking up the name took longer than {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer[:MOST_ADDRESSES]
