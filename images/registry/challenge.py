"""What a registry wants before it answers: the challenges of WWW-Authenticate (RFC 9110, 11.2 to 11.6.1).

    challenge = scheme [ 1*SP ( token68 / #( name BWS "=" BWS ( token / quoted-string ) ) ) ]

Several stand in one header, after commas, or in several headers. Read more widely than the grammar, as registries write
less strictly: values without quotes hold any letter but comma and space, and may be empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a grammar's word
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))')
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_HEADER_MAX = 8 << 10  # letters that are read of one header
_COUNT_MAX = 16  # challenges that are read of one answer


class Scheme(Enum):
    """The ways to log in that are spoken here."""

    BEARER = "bearer"
    BASIC = "basic"
    OTHER = ""


@dataclass(frozen=True)
class Challenge:
    """One way to log in: its name as it was sent ("Bearer"), and its parameters by lower-case name."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> Scheme:
        """Which of ours it is."""
        try:
            return Scheme(self.name.lower())
        except ValueError:
            return Scheme.OTHER

    @property
    def realm(self) -> str:
        """For Bearer the URL of the token service; empty where it was left out."""
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        """What the token service calls this registry; empty where it was left out."""
        return self.parameters.get("service", "")

    @property
    def scopes(self) -> tuple[str, ...]:
        """What a token must allow, such as "repository:team/wheels:pull,push"."""
        return tuple(self.parameters.get("scope", "").split())

    @property
    def lets_push(self) -> bool:
        """Whether one of its scopes has the action push; actions stand in any order ("pull,push", "push,pull")."""
        return any({"push", "*"} & {*scope.rpartition(":")[2].split(",")} for scope in self.scopes)


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of all WWW-Authenticate headers, in their order; what is malformed is left out."""
    found = [challenge for header in headers for challenge in _of_one(header[:_HEADER_MAX])]
    return tuple(found[:_COUNT_MAX])


def _of_one(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    at = _skip(header, 0)
    while at < len(header):
        parameter = _PARAMETER.match(header, at) if found else None
        scheme = None if parameter else _SCHEME.match(header, at)
        if parameter:
            found[-1][1].setdefault(parameter[1].lower(), _value(parameter))
            at = parameter.end()
        elif scheme:
            found.append((scheme[1], {}))
            at = _skip_token68(header, scheme)
        else:
            comma = header.find(",", at)
            at = len(header) if comma < 0 else comma
        at = _skip(header, at)
    return [Challenge(name, parameters) for name, parameters in found]


def _skip(header: str, at: int) -> int:
    """Past spaces and commas; a list may have empty members. A few write semicolons."""
    while at < len(header) and header[at] in " \t,;":
        at += 1
    return at


def _skip_token68(header: str, scheme: re.Match[str]) -> int:
    """Past the token68 of a scheme such as Negotiate. Those spoken here have none, so `service=` is a parameter."""
    if Challenge(scheme[1]).scheme is not Scheme.OTHER:
        return scheme.end()
    token68 = _TOKEN68.match(header, scheme.end())
    return token68.end() if token68 else scheme.end()


def _value(read: re.Match[str]) -> str:
    return read[3].strip("'") if read[2] is None else re.sub(r"\\(.)", r"\1", read[2])
