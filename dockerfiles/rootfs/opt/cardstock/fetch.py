"""Bytes of a picture from a data: or http(s) URL, within limits.

A server that fetches what strangers name can be made to ask its own network. So: http and https only, the address
looked up once and connected to as looked up, every redirect checked again, and, unless ``CARDSTOCK_FETCH=any``,
public addresses only. ``CARDSTOCK_FETCH=off`` takes data: URLs alone. Proxy settings are not used.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]

REDIRECTS = 3
NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Limits:
    """``mode`` public, any or off; ``bytes`` of one picture; ``seconds`` for one whole fetch."""

    mode: str = "public"
    bytes: int = 20 * 2**20
    seconds: float = 10.0


def _bad(message: str) -> ApiError:
    return ApiError(400, message, param="messages", code="invalid_image_url")


def load(url: str, limits: Limits) -> bytes:
    """The bytes at ``url``. Raises ApiError 400 with the reason: too big, too slow, refused, not found, not base64."""
    scheme = url.split(":", 1)[0].lower()
    if scheme == "data":
        return _data(url, limits)
    if scheme not in ("http", "https"):
        raise _bad("a picture's URL must begin with data:, http: or https:")
    if limits.mode == "off":
        raise _bad("this server fetches no URL (CARDSTOCK_FETCH=off): send the picture as a data: URL")
    deadline = time.monotonic() + limits.seconds
    try:
        for _ in range(REDIRECTS + 1):
            status, value = _get(url, limits, deadline)
            if isinstance(value, bytes):
                return value
            url = urljoin(url, value)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _bad(f"the picture could not be fetched: {type(error).__name__}") from error
    raise _bad(f"more than {REDIRECTS} redirects (the last {status})")


def _data(url: str, limits: Limits) -> bytes:
    head, comma, body = url[len("data:") :].partition(",")
    if not comma:
        raise _bad("the data: URL has no comma")
    if len(body) > limits.bytes * 4 // 3 + 4:
        raise _bad(f"the picture is larger than {limits.bytes} bytes")
    raw = unquote_to_bytes(body)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except binascii.Error as error:
        raise _bad(f"the data: URL is not base64: {error}") from error


def allowed(address: str) -> bool:
    """Whether an address is public, looking through the IPv6 forms that carry an IPv4 one."""
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return allowed(str(inner))
    return found.is_global and not found.is_multicast


def _resolve(host: str, port: int, limits: Limits) -> str:
    addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if limits.mode != "any" and not all(allowed(address) for address in addresses):
        raise _bad(f"{host} is not a public address (set CARDSTOCK_FETCH=any to allow it)")
    return addresses[0]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _bad("the picture took too long to fetch")
    return left


def _connection(url: str, limits: Limits, deadline: float) -> tuple[http.client.HTTPConnection, str]:
    """A connection to the address that was checked, and the path to ask for."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _bad("a redirect must stay with http or https")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    raw = socket.create_connection((_resolve(parts.hostname, port, limits), port), _left(deadline))
    connection = http.client.HTTPConnection(parts.hostname, port)
    try:
        raw.settimeout(_left(deadline))
        connection.sock = (
            ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname) if secure else raw
        )
    except BaseException:
        raw.close()
        raise
    return connection, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _get(url: str, limits: Limits, deadline: float) -> tuple[int, bytes | str]:
    """One request: status, and the body or the place a redirect points to."""
    connection, path = _connection(url, limits, deadline)
    # A socket's timeout is for one read: a server that sends a byte now and then would hold a thread for hours.
    alarm = threading.Timer(_left(deadline), _hang_up, [connection.sock])
    alarm.daemon = True
    alarm.start()
    try:
        connection.request("GET", path, headers={"User-Agent": "cardstock", "Accept": "image/*"})
        response = connection.getresponse()
        place = response.getheader("location")
        if response.status in (301, 302, 303, 307, 308) and place:
            return response.status, place
        if response.status != 200:
            raise _bad(f"the picture's server answered {response.status}")
        body = response.read(limits.bytes + 1)
        _left(deadline)
        if len(body) > limits.bytes:
            raise _bad(f"the picture is larger than {limits.bytes} bytes")
        return response.status, body
    finally:
        alarm.cancel()
        connection.close()
