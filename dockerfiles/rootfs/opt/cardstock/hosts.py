"""Which Host and Origin headers a server answers to. Standard library only, no I/O.

A page that a browser has open can point its own name at this machine (DNS rebinding), and then ask the server as if
both were one site. That takes a name: addresses and localhost are let in, names only where they are allowed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

ANY = "*"
# One name or IPv4 address, or an IPv6 address in brackets; then a port. Nothing that could be read as part of a URL.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})))(?::([0-9]{1,5}))?")
_PORTS = {"http": 80, "https": 443}


def read_list(text: str) -> frozenset[str]:
    """The entries of a variable such as CARDSTOCK_ALLOWED_HOSTS: parted by commas or spaces, in small letters."""
    return frozenset(entry.rstrip("/") for entry in re.split(r"[,\s]+", text.lower()) if entry)


def host_name(host_header: str) -> str:
    """The name or address in a Host header, without port, in small letters; empty for what is no such header."""
    found = _HOST.fullmatch(host_header)
    if not found or int(found[3] or 0) > 65535:
        return ""
    return (found[1] or found[2]).lower().removesuffix(".")


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def name_allowed(name: str, allowed: Iterable[str]) -> bool:
    """Whether a name stands in a list: itself, ``*.example.org`` for the names below example.org, or ``*``."""
    return any(
        entry in (ANY, name) or (entry.startswith("*.") and name.endswith(entry[1:]) and name != entry[1:])
        for entry in allowed
    )


def host_allowed(host_header: str, allowed: frozenset[str]) -> bool:
    """Whether a request with this Host header is answered. ``*`` allows every name, but no header that is none."""
    name = host_name(host_header)
    if not name:
        return False
    return is_address(name) or name == "localhost" or name_allowed(name, allowed)


def origin_allowed(origin: str | None, host: str, allowed: frozenset[str]) -> bool:
    """Whether a request with this Origin header (None: without one) and Host header is answered.

    Programs send no Origin; a page of the server's own host is let in, others (https://app.example.org) by the list.
    """
    if origin is None or ANY in allowed:
        return True
    origin = origin.lower()
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _PORTS or origin != f"{parts.scheme}://{parts.netloc}" or not host_name(parts.netloc):
        return False
    if origin in allowed:
        return True
    own = _HOST.fullmatch(host)
    default = _PORTS[parts.scheme]
    return bool(own) and host_name(host) == host_name(parts.netloc) and int(own[3] or default) == (port or default)  # type: ignore[index]
