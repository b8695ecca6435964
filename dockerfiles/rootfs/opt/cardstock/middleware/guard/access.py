"""Who may ask: the key, the Host and the Origin of a request, from its headers alone. Pure."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from guard_settings import GuardSettings  # type: ignore[import-not-found,unused-ignore]

# What load balancers and the image's own health check ask; neither tells more than that the server is there.
OPEN_PATHS = ("/health", "/ping")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?", re.ASCII)
# Names below these belong to nobody outside: a stranger cannot point them at 127.0.0.1.
_PRIVATE_SUFFIXES = (".localhost", ".internal", ".cluster.local", ".svc", ".home.arpa")
Headers = Sequence[tuple[bytes, bytes]]


def values(headers: Headers, name: bytes) -> list[str]:
    """All values of a header, as ASGI servers give them (names in lower case)."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def check(headers: Headers, method: str, path: str, root_path: str, scheme: str, settings: GuardSettings) -> None:
    """Raises ApiError: 400 for a Host that is none, 403 for one that is not served, or another site's page, 401 for the
    want of a key.
    """
    if path.removeprefix(root_path) in OPEN_PATHS:
        return
    host = check_host(values(headers, b"host"), settings.hosts)
    origins = values(headers, b"origin")
    if origins or method not in ("GET", "HEAD", "OPTIONS"):
        check_origin(origins, values(headers, b"sec-fetch-site"), f"{scheme}://{host}", settings.origins)
    # A browser asks first whether it may ask, and sends no key with that; vLLM's CORS layer answers it.
    preflight = method == "OPTIONS" and bool(origins) and bool(values(headers, b"access-control-request-method"))
    if settings.keys and not preflight:
        check_key(values(headers, b"authorization"), settings.keys)


def check_host(given: Sequence[str], allowed: Sequence[str]) -> str:
    """The Host header, "" where there is none. Raises ApiError.

    Addresses, localhost and names without a dot are always served: a page of a stranger cannot have such a name, so
    that it cannot make a browser take this server for its own (DNS rebinding).
    """
    if not given:
        return ""
    match = _HOST.fullmatch(given[0])
    if len(given) > 1 or match is None:
        raise ApiError(400, "the Host header is not a host", code="invalid_host")
    name = match[1].lower().rstrip(".")
    if "*" in allowed or name in allowed or given[0].lower() in allowed or _own(name):
        return given[0].lower()
    raise ApiError(
        403,
        f"this server is not served as {name}: add it to CARDSTOCK_ALLOWED_HOSTS (./inv serve --allow-host {name})",
        code="host_not_allowed",
    )


def _own(name: str) -> bool:
    if "." not in name or name.endswith(_PRIVATE_SUFFIXES):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_origin(origins: Sequence[str], sites: Sequence[str], own: str, allowed: Sequence[str]) -> None:
    """Raises ApiError 403 for a request that a page of another site has made."""
    if "*" in allowed:
        return
    for origin in origins:
        if origin.lower() not in (own, *allowed):
            raise ApiError(
                403,
                f"pages of {origin[:200]} may not ask this server: add the origin to CARDSTOCK_ALLOWED_ORIGINS",
                code="origin_not_allowed",
            )
    if not origins and "cross-site" in sites:
        raise ApiError(403, "pages of another site may not ask this server", code="origin_not_allowed")


def check_key(authorization: Sequence[str], keys: Sequence[str]) -> None:
    """Raises ApiError 401 unless the header is "Bearer" and one of the keys; takes as long for any that is wrong."""
    scheme, _, given = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
    digest = hashlib.sha256(given.strip().encode("latin-1")).digest()
    right = False
    for key in keys:
        right |= hmac.compare_digest(digest, hashlib.sha256(key.encode()).digest())
    if not right or scheme.lower() != "bearer":
        raise ApiError(
            401, "the key is missing or wrong: send it as 'Authorization: Bearer KEY'", code="invalid_api_key"
        )
