"""Bearer tokens: a challenge is taken to the token service that it names, with or without a login.

By GET as in https://distribution.github.io/distribution/spec/auth/token/, and for refresh tokens by POST as in
https://distribution.github.io/distribution/spec/auth/oauth/. A fault that may pass is raised as one, so that whoever
asked for the token tries the whole again: there is one loop, not one inside another.
"""

from __future__ import annotations

import json
from enum import Enum
from urllib.parse import urlsplit

from images.core import RegistryFailure
from images.registry.address import host_of, is_loopback, without_query
from images.registry.challenge import Challenge
from images.registry.credentials import Login
from images.registry.response import Response
from images.registry.transport import Transport

_CLIENT = "cardstock"
_ANSWER_MAX = 1 << 20  # bytes; tokens have a few thousand
_SECONDS = 60.0
_NO_OAUTH2 = (404, 405)  # a service that knows the GET alone


class Grant(Enum):
    """How a token is asked for."""

    ANONYMOUS = "without a login"
    PASSWORD = "with user and password"  # noqa: S105 - words for a person
    REFRESH_TOKEN = "with a refresh token"  # noqa: S105


def fetch_token(
    transport: Transport, host: str, challenge: Challenge, login: Login | None, scopes: tuple[str, ...]
) -> str:
    """A token for a challenge of a registry's host. ``scopes`` are wanted where the challenge names none.

    Raises TransientError for a fault that may pass, RegistryFailure where the service refuses or gives no token, and
    where the login would go there without encryption.
    """
    realm = challenge.realm
    _check(host, realm, login)
    wanted = challenge.scopes or scopes
    if login and login.refresh_token:
        answer = _post(transport, challenge, wanted, login.refresh_token)
        if answer.status not in _NO_OAUTH2 or not login.basic:
            return _token_of(answer, host, realm, Grant.REFRESH_TOKEN)
        answer.close()
    basic = login.basic if login else ""
    answer = transport.send(
        "GET",
        realm.partition("#")[0],
        {"Authorization": basic} if basic else {},
        query={**({"service": challenge.service} if challenge.service else {}), "scope": list(wanted)},
    )
    return _token_of(answer, host, realm, Grant.PASSWORD if basic else Grant.ANONYMOUS)


def _post(transport: Transport, challenge: Challenge, scopes: tuple[str, ...], refresh_token: str) -> Response:
    """By OAuth2. A redirect is not followed: it would carry the refresh token along."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "service": challenge.service,
        "scope": " ".join(scopes),
        "client_id": _CLIENT,
    }
    return transport.send("POST", challenge.realm, body=form, redirects=0)


def _check(host: str, realm: str, login: Login | None) -> None:
    """Raise RegistryFailure for a realm that cannot be asked, or to which this login must not go."""
    try:
        parts = urlsplit(realm)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise RegistryFailure(
            f"{host} names no token service that can be asked",
            cause=f"it wants a token of {realm[:200]!r}",
            do="tell whoever runs this registry",
        )
    if login and parts.scheme == "http" and not (is_loopback(host) and is_loopback(host_of(realm))):
        raise RegistryFailure(
            f"the login for {host} would go to {host_of(realm)} without encryption",
            cause="the registry names a token service with http://",
            do="tell whoever runs this registry to give the token service's https address",
            where=without_query(realm),
        )


def _token_of(answer: Response, host: str, realm: str, grant: Grant) -> str:
    with answer:
        if fault := answer.fault():
            raise fault
        if answer.status != 200:
            raise RegistryFailure(
                f"{host}: the token service {host_of(realm)} gives no token {grant.value}",
                cause=f"HTTP {answer.status}: {answer.words()}",
                do=f"docker login {host}, then run the same again",
                where=without_query(realm),
            )
        raw = answer.read(_ANSWER_MAX, _SECONDS)
    try:
        content = json.loads(raw)
        token = content.get("token") or content.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise RegistryFailure(
            f"{host}: the token service {host_of(realm)} answers without a token",
            cause="its answer is no JSON object with token or access_token",
            do="see that the registry's name is right; tell whoever runs it",
            where=without_query(realm),
        )
    return token
