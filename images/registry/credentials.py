"""Docker's own logins: config.json and the credential helpers that it names.

Its form is that of docker/cli (cli/config/configfile), the helpers' protocol that of docker/docker-credential-helpers:
`docker-credential-NAME get` reads a server's name and writes {"ServerURL", "Username", "Secret"}.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images.core import RegistryFailure, process
from images.registry.address import DOCKER_HUB, RepositoryAddress, login_host

_CONFIG_MAX = 4 << 20
_ANSWER_MAX = 1 << 20
_HELPER_SECONDS = 30.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB_SERVER = "https://index.docker.io/v1/"  # the name under which docker keeps a login for Docker Hub
_TOKEN_USER = "<token>"  # noqa: S105 - the user name by which a helper says that its secret is a refresh token
_NOT_FOUND = "credentials not found"  # what a helper that works says where it has no login
_SERVERS_MAX = 4  # names under which one helper is asked
Say = Callable[[str], None]


@dataclass(frozen=True)
class Login:
    """A user and password, a refresh token ("identity token"), or both; what is not there is empty."""

    user: str = ""
    password: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The Authorization header of user and password (RFC 7617); empty without a password."""
        if not self.password:
            return ""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


@dataclass(frozen=True)
class DockerConfig:
    """What config.json says of logins: entries by server, helpers by server, and the helper of all the others."""

    path: Path
    auths: Mapping[str, Any] = field(default_factory=dict, repr=False)
    helpers: Mapping[str, Any] = field(default_factory=dict)
    store: str = ""


def read_config(environment: Mapping[str, str]) -> DockerConfig:
    """config.json of $DOCKER_CONFIG, else of ~/.docker; nothing where there is none. Raises RegistryFailure."""
    folder = environment.get("DOCKER_CONFIG")
    try:
        path = Path(folder or Path.home() / ".docker") / "config.json"
    except RuntimeError:  # no home
        return DockerConfig(Path())
    if not path.is_file():
        return DockerConfig(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_CONFIG_MAX + 1)
        if len(raw) > _CONFIG_MAX:
            raise ValueError(f"it has more than {_CONFIG_MAX} bytes")
        content = json.loads(raw)
        auths, helpers = content.get("auths") or {}, content.get("credHelpers") or {}
        if not isinstance(auths, dict) or not isinstance(helpers, dict):
            raise TypeError("auths and credHelpers are objects")
        return DockerConfig(path, auths, helpers, str(content.get("credsStore") or ""))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryFailure("docker's logins cannot be read", cause=str(error), where=str(path)) from error


def find_login(config: DockerConfig, address: RepositoryAddress, say: Say = lambda _: None) -> Login | None:
    """The login for a repository's registry: of its helper, else of config.json itself; None where there is none.

    A helper that cannot be run, or does not answer as one, is told and passed over. Raises RegistryFailure for an entry
    of config.json that cannot be read.
    """
    servers = list(_servers(config.auths, address))
    own = next(iter(_servers(config.helpers, address)), None)
    helper = config.helpers[own] if own else config.store
    if helper:
        usual = _HUB_SERVER if login_host(address.host) == DOCKER_HUB else address.host
        asked = dict.fromkeys([usual, *([own] if own else []), *servers])
        try:
            for server in list(asked)[:_SERVERS_MAX]:
                if login := _ask_helper(str(helper), server):
                    return login
        except _HelperBroken as error:
            say(f"{error}: passed over")
    for server in servers:
        if login := _read_entry(config, server):
            return login
    return None


def _servers(named: Mapping[str, Any], address: RepositoryAddress) -> Iterator[str]:
    """The keys for a registry, best first: the longest path that holds the repository, then the host, then the rest.

    Keys may have a scheme, and the path of an API ("https://index.docker.io/v1/") or of a team.
    """

    def rank(key: str) -> tuple[int, int]:
        path = _path(key)
        if path and (f"{address.path}/").startswith(f"{path}/"):
            return (0, -len(path))
        return (1, 0) if key == address.host or not path else (2, 0)

    host = login_host(address.host)
    yield from sorted((key for key in named if login_host(_bare(key).partition("/")[0]) == host), key=rank)


def _bare(key: str) -> str:
    return re.sub(r"^[a-z]+://", "", key, flags=re.IGNORECASE)


def _path(key: str) -> str:
    path = _bare(key).partition("/")[2].strip("/")
    return "" if path in ("v1", "v2") else path


def _read_entry(config: DockerConfig, server: str) -> Login | None:
    """The login of an entry; None for an empty one, which docker leaves for what a helper keeps."""
    entry = config.auths[server]
    try:
        user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth"):
            user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        refresh_token = str(entry.get("identitytoken") or "")
    except (ValueError, TypeError, AttributeError) as error:
        raise RegistryFailure(
            f"docker's login for {server} cannot be read",
            cause="its entry is not user:password in base64",
            do=f"docker login {server}",
            where=str(config.path),
        ) from error
    return _login(user, password.strip("\0"), refresh_token)


def _login(user: str, password: str, refresh_token: str = "") -> Login | None:
    if user == _TOKEN_USER:
        user, password, refresh_token = "", "", refresh_token or password
    return Login(user, password, refresh_token) if password or refresh_token else None


class _HelperBroken(Exception):
    """A credential helper cannot be run, or does not answer as one."""


def _ask_helper(helper: str, server: str) -> Login | None:
    """What a helper keeps for a server; None where it says that it has nothing."""
    program = f"docker-credential-{helper}"
    if not _HELPER_NAME.fullmatch(helper):
        raise _HelperBroken(f"{helper[:100]!r} is no name of a credential helper")
    try:
        done = process.run([program, "get"], stdin=f"{server}\n", timeout=_HELPER_SECONDS, check=False)
    except process.ProcessFailed as error:
        raise _HelperBroken(f"{program} cannot be asked for a login ({error.tail})") from error
    if done.code:
        words = (done.out or done.err).strip()
        if _NOT_FOUND in words.lower():
            return None
        raise _HelperBroken(f"{program} gives no login for {server} ({words[:200]!r})")
    try:
        if len(done.out) > _ANSWER_MAX:
            raise ValueError("too long")
        content = json.loads(done.out)
        user, secret = content["Username"], content["Secret"]
        if not isinstance(user, str) or not isinstance(secret, str):
            raise TypeError("Username and Secret are texts")
        return _login(user, secret)
    except (ValueError, TypeError, KeyError, RecursionError) as error:  # its answer may hold a secret: not shown
        raise _HelperBroken(f"{program} does not answer as a credential helper does, with JSON") from error
