"""Which login goes with a request to one registry: none until it refuses, then what its challenge asks for.

It goes to the registry's own scheme, host and port alone. Where both are offered, a token comes before Basic: the login
itself then goes to the token service alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from images.core import RegistryFailure
from images.registry.address import RepositoryAddress, same_origin
from images.registry.challenge import Challenge, Scheme, parse_challenges
from images.registry.credentials import Login, find_login, read_config
from images.registry.response import Response
from images.registry.token import fetch_token
from images.registry.transport import Method, Transport


class RegistryLogin:
    """The login of one repository. ``say`` gets a line about a credential helper that is passed over."""

    def __init__(self, address: RepositoryAddress, transport: Transport, say: Callable[[str], None]) -> None:
        self._address, self._transport, self._say = address, transport, say
        self._header = ""
        self._said: set[str] = set()
        self._reason = ""  # what stood in the way of the last login

    def headers_for(self, url: str) -> dict[str, str]:
        """The Authorization header for a URL; none for one that is not the registry's own."""
        return {"Authorization": self._header} if self._header and self.is_own(url) else {}

    def answer(self, refusal: Response, method: Method) -> bool:
        """Make the login that a refusal (401, 403) asks for; whether there is one to try.

        Raises TransientError and RegistryFailure as `fetch_token` does, RegistryFailure for broken docker logins.
        """
        self._reason = ""
        challenges = parse_challenges(refusal.header_lines("WWW-Authenticate"))
        if not challenges or not self.is_own(refusal.url):
            return False
        login = find_login(read_config(os.environ), self._address, self._say_once)
        if login is None:
            self._reason = f"docker has no login for {self._address.host}"
        before = self._header
        self._header = self._make(challenges, login, method)
        # A token may have ended, or been for something else; user and password do not get better by being said again.
        return bool(self._header) and (self._header != before or not self._header.startswith("Basic"))

    def reason(self, refusal: Response) -> str:
        """Why a refusal could not be answered with a login, for the error that follows it; empty if one was given."""
        if not self.is_own(refusal.url):
            return f"{refusal.host} is not the registry's own address, and gets no login"
        return self._reason

    def _make(self, challenges: tuple[Challenge, ...], login: Login | None, method: Method) -> str:
        bearer, basic = _first(challenges, Scheme.BEARER), ""
        if login and _first(challenges, Scheme.BASIC):
            basic = login.basic
        if bearer is not None:
            try:
                return f"Bearer {self._token(bearer, login, method)}"
            except RegistryFailure:
                if not basic:
                    raise
        if not basic and (login or not _first(challenges, Scheme.BASIC)):
            offered = ", ".join(dict.fromkeys(challenge.name[:40] for challenge in challenges))
            self._reason = f"the registry offers {offered}, and docker has no login of that kind"
        return basic

    def _token(self, bearer: Challenge, login: Login | None, method: Method) -> str:
        actions = "pull" if method in ("GET", "HEAD") else "pull,push"
        scope = f"repository:{self._address.path}:{actions}"
        if bearer.scopes and "push" in actions and not bearer.lets_push:
            # It names too little for a write; or without quotes, and then "pull,push" ends at the comma.
            parameters = {**bearer.parameters, "scope": " ".join((*bearer.scopes, scope))}
            bearer = Challenge(bearer.name, parameters)
        return fetch_token(self._transport, self._address.host, bearer, login, (scope,))

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def is_own(self, url: str) -> bool:
        """Whether a URL is the registry's own, so that the login may go there."""
        return same_origin(url, self._address.registry)


def _first(challenges: tuple[Challenge, ...], scheme: Scheme) -> Challenge | None:
    return next((challenge for challenge in challenges if challenge.scheme is scheme), None)
