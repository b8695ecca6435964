"""Where a repository is: the host that people name, the URL that answers for it, and what belongs to it alone."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from images.core import UsageError

_HOST = re.compile(r"(?:[a-z0-9]+(?:[.-]+[a-z0-9]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*")
# Docker Hub has one name that people write, and others for its API and for logins (moby's registry/config.go).
DOCKER_HUB = "docker.io"
_HUB_API = "registry-1.docker.io"
_HUB_NAMES = (DOCKER_HUB, "index.docker.io", _HUB_API)
_SHOWN_MAX = 300
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class RepositoryAddress:
    """A repository by the ``name`` that people type, its ``host``, and its ``path`` in that registry."""

    name: str
    host: str
    path: str

    @property
    def plain(self) -> bool:
        """Whether plain http is spoken: to this machine alone."""
        return is_loopback(self.host)

    @property
    def registry(self) -> str:
        """URL of the registry's API, "https://registry.example.com/v2/"."""
        return api_url(self.host)

    @property
    def url(self) -> str:
        """URL of the repository in that API, without a slash behind it."""
        return self.registry + self.path


def parse_repository(name: str) -> RepositoryAddress:
    """The address of "registry.example.com/team/wheels". Raises UsageError for what is no repository's name."""
    host, _, path = name.partition("/")
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or not (set(host) & set(".:") or host == "localhost"):
        raise UsageError(
            f"{name!r} is not a repository",
            cause="it needs a host, then a path in lower case; no https:// before it, and neither tag nor digest",
            do="write it as in registry.example.com/team/wheels",
        )
    if login_host(host) == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return RepositoryAddress(name, host, path)


def api_url(host: str) -> str:
    """URL of the distribution API of a registry's host."""
    address = _HUB_API if login_host(host) == DOCKER_HUB else host
    return f"{'http' if is_loopback(host) else 'https'}://{address}/v2/"


def login_host(host: str) -> str:
    """The host under which logins for a registry's host are compared: one name for all of Docker Hub's."""
    name = host.lower().removesuffix(f":{_PORTS['https']}")
    return DOCKER_HUB if name in _HUB_NAMES else name


def is_loopback(host: str) -> bool:
    """Whether a host (with or without port) is this machine: only then plain http is spoken."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """Host and port of a URL, without what may stand before an @; the URL itself where it has none."""
    try:
        return _shown(urlsplit(url).netloc.rpartition("@")[2] or url)
    except ValueError:
        return _shown(url)


def without_query(url: str) -> str:
    """A URL to show: its query may be signed, and what stands before an @ may be a login."""
    plain = url.partition("?")[0]
    scheme, mark, rest = plain.partition("://")
    return _shown(f"{scheme}{mark}{rest.rpartition('@')[2]}")


def _shown(address: str) -> str:
    """An address from outside without what a terminal would obey, and not longer than a person reads."""
    return "".join(letter if letter.isprintable() else "?" for letter in address[:_SHOWN_MAX])


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port (RFC 6454), so that a login for one may go to the other."""
    try:
        return _origin(one) == _origin(other)
    except ValueError:
        return False


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme)
