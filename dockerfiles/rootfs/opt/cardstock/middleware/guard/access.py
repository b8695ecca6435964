"""Who may ask: the key, the Host and the Origin of a request, from its headers alone. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import hosts  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from guard_settings import GuardSettings  # type: ignore[import-not-found,unused-ignore]

# What load balancers and the image's own health check ask; neither tells more than that the server is there.
OPEN_PATHS = ("/health", "/ping")
# Names below these, and names without a dot, are given by whoever runs the network: no stranger's page has one.
OWN_SUFFIXES = (".localhost", ".internal", ".svc", ".cluster.local", ".home.arpa")
Headers = Sequence[tuple[bytes, bytes]]


def values(headers: Headers, name: bytes) -> list[str]:
    """All values of a header, as ASGI servers give them (names in lower case)."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def check(headers: Headers, method: str, path: str, root_path: str, settings: GuardSettings) -> None:
    """Raises ApiError: 400 for a Host that is none, 403 for one that is not served, or another site's page, 401 for the
    want of a key.
    """
    if path.removeprefix(root_path) in OPEN_PATHS:
        return
    host = check_host(values(headers, b"host"), settings.hosts)
    origins = values(headers, b"origin")
    check_origin(origins, host, settings.origins)
    if not origins and method not in ("GET", "HEAD") and "cross-site" in values(headers, b"sec-fetch-site"):
        raise ApiError(403, "pages of another site may not ask this server", code="origin_not_allowed")
    # A browser asks first whether it may ask, and sends no key with that; vLLM's CORS layer answers it.
    preflight = method == "OPTIONS" and bool(origins) and bool(values(headers, b"access-control-request-method"))
    if settings.keys and not preflight:
        check_key(values(headers, b"authorization"), settings.keys)


def check_host(given: Sequence[str], allowed: frozenset[str]) -> str:
    """The Host header, "" where there is none. Raises ApiError.

    Addresses, localhost and names that nobody outside can have are served, others where they are listed: a page could
    point its own name at this machine (DNS rebinding).
    """
    if not given:
        return ""
    name = hosts.host_name(given[0])
    if len(given) > 1 or not name:
        raise ApiError(400, "the Host header is not a host", code="invalid_host")
    if not (hosts.host_allowed(given[0], allowed) or "." not in name or name.endswith(OWN_SUFFIXES)):
        raise ApiError(
            403,
            f"this server is not served as {name}: add it to CARDSTOCK_ALLOWED_HOSTS (./inv serve --allow-host {name})",
            code="host_not_allowed",
        )
    return given[0]


def check_origin(origins: Sequence[str], host: str, allowed: frozenset[str]) -> None:
    """Raises ApiError 403 for a request that a page of another site has made."""
    for origin in origins:
        if not hosts.origin_allowed(origin, host, allowed):
            raise ApiError(
                403,
                f"pages of {origin[:200]} may not ask this server: add the origin to CARDSTOCK_ALLOWED_ORIGINS",
                code="origin_not_allowed",
            )


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
