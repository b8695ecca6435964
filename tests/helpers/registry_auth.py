"""How the registry on loopback wants one to log in: what it asks for, whom it believes, and its token service."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

BEARER = 'Bearer realm="{realm}",service="registry.test",scope="{scope}"'
BASIC = 'Basic realm="registry"'
Actions = Literal["pull", "pull,push"]


@dataclass(frozen=True)
class TokenRequest:
    """What the token service was asked: the method, the fields of query or form, and the Authorization header."""

    method: str
    fields: Mapping[str, list[str]]
    authorization: str


@dataclass
class Auth:
    """``challenges`` are the WWW-Authenticate headers of a 401; {realm} is the token service, {scope} what is missing.

    ``users`` (by password) and ``refresh_tokens`` are believed; with ``anonymous`` the token service gives tokens
    without either. Its ``faults`` are statuses that it answers first, with Retry-After ``after``. ``answer`` is what it
    says instead of a token's JSON, ``key`` where the token stands in it; without ``oauth2`` it knows no POST.
    ``realm`` is a token service elsewhere. With ``readers_only`` a token without a login is for
    reading; without ``scopes_count`` every token is for all; ``challenges_of_tokens`` answer a token that does not
    suffice. ``asked`` is what it was asked; ``issued`` are the tokens it gave, with the
    actions they allow: take some out, and they have expired.
    """

    challenges: list[str] = field(default_factory=lambda: [BEARER])
    users: dict[str, str] = field(default_factory=dict)
    refresh_tokens: set[str] = field(default_factory=set)
    anonymous: bool = False
    oauth2: bool = True
    faults: list[int] = field(default_factory=list)
    after: str | None = None
    answer: bytes | None = None
    key: Literal["token", "access_token"] = "token"
    realm: str = ""
    readers_only: bool = False
    scopes_count: bool = True
    challenges_of_tokens: list[str] = field(default_factory=list)
    asked: list[TokenRequest] = field(default_factory=list)
    issued: dict[str, Actions] = field(default_factory=dict)

    def believes(self, authorization: str, method: str) -> bool:
        """Whether a header opens this registry for a request of this method."""
        scheme, _, word = authorization.partition(" ")
        if scheme == "Bearer":
            allowed = self.issued.get(word, "")
            return _needed(method) in (allowed, allowed.partition(",")[0])
        return scheme == "Basic" and self._is_user(word) and any("basic" in line.lower() for line in self.challenges)

    def headers(self, host: str, repository: str, method: str, authorization: str) -> list[tuple[str, str]]:
        """The WWW-Authenticate headers of a refusal."""
        lines = self.challenges_of_tokens if authorization.startswith("Bearer") else []
        realm, scope = self.realm or f"http://{host}/token", f"repository:{repository}:{_needed(method)}"
        return [("WWW-Authenticate", line.format(realm=realm, scope=scope)) for line in lines or self.challenges]

    def token(self, method: str, path: str, body: bytes, authorization: str) -> tuple[int, bytes, dict[str, str]]:
        """What the token service answers: status, body, headers."""
        text = body.decode() if method == "POST" else urlsplit(path).query
        fields = parse_qs(text, keep_blank_values=True)
        self.asked.append(TokenRequest(method, fields, authorization))
        if self.faults:
            return self.faults.pop(0), b"{}", {"Retry-After": self.after} if self.after else {}
        if method == "POST" and not self.oauth2:
            return 404, b"404 page not found", {}
        if not self._known(method, fields, authorization):
            words = {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}
            return 401, json.dumps(words).encode(), {}
        if self.answer is not None:
            return 200, self.answer, {}
        token = f"token-{len(self.asked)}"
        scopes = " ".join(fields.get("scope", []))
        reads = self.readers_only and not authorization and method == "GET"
        self.issued[token] = "pull" if reads or ("push" not in scopes and self.scopes_count) else "pull,push"
        return 200, json.dumps({self.key: token, "expires_in": 300}).encode(), {"Content-Type": "application/json"}

    def _known(self, method: str, fields: Mapping[str, list[str]], authorization: str) -> bool:
        if method == "POST":
            grant, token = fields.get("grant_type"), fields.get("refresh_token", [""])[0]
            return grant == ["refresh_token"] and token in self.refresh_tokens and "client_id" in fields
        scheme, _, word = authorization.partition(" ")
        return self._is_user(word) if scheme == "Basic" else self.anonymous and not authorization

    def _is_user(self, word: str) -> bool:
        user, _, password = base64.b64decode(word).decode().partition(":")
        return bool(password) and self.users.get(user) == password


def _needed(method: str) -> Actions:
    return "pull" if method in ("GET", "HEAD") else "pull,push"
