"""Bytes of a picture from a data: or http(s) URL, within limits.

A server that fetches what strangers name can be made to ask its own network. So nothing is fetched unless
``CARDSTOCK_FETCH`` says so: ``off`` takes data: URLs alone, ``public`` fetches from public addresses, ``any`` from all.
``CARDSTOCK_MEDIA_DOMAINS`` names the hosts that are fetched from (``*.example.org`` those below it, ``*`` all). http
and https only; a name is looked up once and connected to as looked up; each redirect is checked again; a refusal does
not tell a closed port from a silent one. Proxy settings are not used.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from addresses import is_public, resolve  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from hosts import name_allowed, read_list  # type: ignore[import-not-found,unused-ignore]

MODES = ("off", "public", "any")
MEGABYTE = 2**20
MAX_ADDRESS = 8192  # characters of an http(s) URL
MAX_ESCAPES = 4096  # of a data: URL: a base64 text needs few, and each costs a hundred bytes to undo
HOW_TO_ALLOW = "./inv serve --allow-media-domain HOST; in a container CARDSTOCK_FETCH=public, CARDSTOCK_MEDIA_DOMAINS"

log = logging.getLogger("cardstock")


@dataclass(frozen=True)
class Limits:
    """``mode`` off, public or any; ``bytes`` of one picture; ``seconds`` for one whole fetch; ``domains``: hosts that
    are fetched from (none named: as ``mode`` says), ``redirects`` that are followed.
    """

    mode: str = "off"
    bytes: int = 20 * MEGABYTE
    seconds: float = 10.0
    domains: tuple[str, ...] = ()
    redirects: int = 3


def limits_from(environment: Mapping[str, str]) -> Limits:
    """Limits as the environment sets them. Raises ValueError with what is wrong."""
    domains = tuple(sorted(read_list(environment.get("CARDSTOCK_MEDIA_DOMAINS") or "")))
    mode = environment.get("CARDSTOCK_FETCH") or ("public" if domains else "off")
    if mode not in MODES:
        raise ValueError(f"CARDSTOCK_FETCH must be {', '.join(MODES[:-1])} or {MODES[-1]}, not {mode!r}")
    numbers = []
    for name, default in (("CARDSTOCK_MAX_IMAGE_MB", 20), ("CARDSTOCK_FETCH_TIMEOUT", 10)):
        value = environment.get(name) or str(default)
        if not value.isdecimal() or not 0 < int(value) < 2**31:
            raise ValueError(f"{name} must be a whole number above 0, not {value!r}")
        numbers.append(int(value))
    return Limits(mode, numbers[0] * MEGABYTE, numbers[1], domains)


def _bad(message: str) -> ApiError:
    return ApiError(400, message, param="messages", code="invalid_image_url")


def is_fetched(url: str) -> bool:
    """Whether `load` would ask another server for ``url``."""
    return url[:8].lower().startswith(("http:", "https:"))


def load(url: str, limits: Limits) -> bytes:
    """The bytes at ``url``. Raises ApiError 400 with the reason: too big, too slow, refused, not found, not base64."""
    if url[:5].lower() == "data:":
        return _data(url, limits)
    if not is_fetched(url):
        raise _bad("a picture's URL must begin with data:, http: or https:")
    if limits.mode == "off":
        raise _bad(f"this server fetches no picture by its address: send it as a data: URL, or allow its host "
                   f"({HOW_TO_ALLOW})")  # fmt: skip
    if len(url) > MAX_ADDRESS:
        raise _bad(f"a picture's address must have at most {MAX_ADDRESS} characters")
    deadline = time.monotonic() + limits.seconds
    try:
        for _ in range(limits.redirects + 1):
            status, value = _get(url, limits, deadline)
            if isinstance(value, bytes):
                return value
            url = urljoin(url, value)
    except (OSError, http.client.HTTPException, ValueError) as error:
        log.info("a picture could not be fetched: %s", type(error).__name__)
        raise _bad(
            "the picture could not be fetched: its server is not found, does not answer, or is too slow"
        ) from error
    raise _bad(f"more than {limits.redirects} redirects (the last {status})")


def _data(url: str, limits: Limits) -> bytes:
    head, comma, body = url[len("data:") :].partition(",")
    if not comma:
        raise _bad("the data: URL has no comma")
    if len(body) > limits.bytes * 4 // 3 + 4:
        raise _bad(f"the picture is larger than {limits.bytes} bytes")
    if body.count("%") > MAX_ESCAPES:
        raise _bad(f"the data: URL has more than {MAX_ESCAPES} escapes (%): send it as base64")
    try:
        raw = unquote_to_bytes(body)
        return base64.b64decode(raw, validate=True) if head.lower().endswith(";base64") else raw
    except UnicodeError as error:  # half a character
        raise _bad("the data: URL holds what is no text") from error
    except binascii.Error as error:
        raise _bad(f"the data: URL is not base64: {error}") from error


def _addresses(host: str, port: int, limits: Limits, deadline: float) -> list[str]:
    if limits.domains and not name_allowed(host.lower().removesuffix("."), limits.domains):
        raise _bad(f"{host[:100]} is not among the hosts that pictures are fetched from ({HOW_TO_ALLOW})")
    found: list[str] = resolve(host, port, _left(deadline))
    if limits.mode != "any" and not all(is_public(address) for address in found):
        raise _bad(f"{host[:100]} is not a public address (CARDSTOCK_FETCH=any allows it)")
    return found


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the picture took too long to fetch")
    return left


def _connect(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """A connection to the first that answers."""
    for number, address in enumerate(addresses, 1):
        try:
            return socket.create_connection((address, port), _left(deadline) / (len(addresses) - number + 1))
        except OSError:
            if number == len(addresses):
                raise
    raise OSError("the name has no address")


def _hang_up(lines: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):
        lines[-1].shutdown(socket.SHUT_RDWR)


def _get(url: str, limits: Limits, deadline: float) -> tuple[int, bytes | str]:
    """One request: status, and the body or the place a redirect points to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _bad("a redirect must stay with http or https")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(parts.hostname, port)
    lines = [_connect(_addresses(parts.hostname, port, limits, deadline), port, deadline)]
    # A socket's timeout is for one read: a server that sends a byte now and then would hold a thread for hours.
    alarm = threading.Timer(max(0.01, deadline - time.monotonic()), _hang_up, [lines])
    alarm.daemon = True
    try:
        lines[0].settimeout(_left(deadline))
        alarm.start()
        if secure:
            context = ssl.create_default_context()
            lines.append(context.wrap_socket(lines[0], server_hostname=parts.hostname, do_handshake_on_connect=False))
            lines[-1].do_handshake()  # type: ignore[attr-defined]
        connection.sock = lines[-1]
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
        lines[-1].close()
        connection.close()
