"""What a row of the table of registries is: who behaves so, how, and what the three ways through it come to."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.registries import Asked, FakeRegistry, Reply
from tests.helpers.registry_auth import BEARER, Auth

USER, PASSWORD, REFRESH_TOKEN = "me", "pass-word-1", "refresh-token-1"
ME = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, REFRESH_TOKEN, ME)


@dataclass(frozen=True)
class Told:
    """A refusal: its exit code, and words that stand in it."""

    code: int
    words: str


Outcome = Told | None  # None: served
SERVED: Outcome = None


@dataclass
class Setting:
    """A registry and another host, docker's logins in ``folder``, and what was waited and said."""

    host: str
    shelf: FakeRegistry
    other_host: str
    other: FakeRegistry
    folder: Path
    waits: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def want(self, *challenges: str, anonymous: bool = False) -> Auth:
        """The registry wants a login by these challenges."""
        self.shelf.auth = Auth(list(challenges) or [BEARER], {USER: PASSWORD}, {REFRESH_TOKEN}, anonymous)
        return self.shelf.auth

    def log_in(self, server: str = "", **entry: str) -> None:
        """As `docker login` leaves it."""
        self.config(auths={server or self.host: entry or {"auth": ME}})

    def config(self, **content: object) -> None:
        """docker's config.json."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps(content))

    def helper(self, script: str) -> None:
        """A credential helper for all servers."""
        program = self.folder.parent / "bin" / "docker-credential-test"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        self.config(credsStore="test")

    def on(self, pattern: str, reply: Reply | Callable[[Asked], Reply | None], times: int | None = None) -> None:
        """Answer so where "METHOD /path" holds ``pattern``, a regular expression; ``times``: only the first ones."""
        left = [times if times is not None else -1]

        def rule(asked: Asked) -> Reply | None:
            if not left[0] or not re.search(pattern, f"{asked.method} {asked.path}"):
                return None
            left[0] -= 1
            return reply if isinstance(reply, Reply) else reply(asked)

        self.shelf.rules.append(rule)

    def asked(self, pattern: str) -> list[str]:
        """The requests that hold a regular expression."""
        return [line for line in self.shelf.asked if re.search(pattern, line)]


Check = Callable[[], None]
Arrange = Callable[[Setting], Check | None]


@dataclass(frozen=True)
class Behaviour:
    """A row: which registries do what, where that was read, how it is arranged, and what each way comes to.

    What ``arrange`` returns is called afterwards, to look at what was asked.
    """

    name: str
    who: str
    does: str
    source: str
    arrange: Arrange
    pull: Outcome
    publish: Outcome
    wheels: Outcome


BEHAVIOURS: list[Behaviour] = []


def behaviour(
    who: str,
    does: str,
    source: str = "",
    *,
    told: Outcome = SERVED,
    pull: Outcome = SERVED,
    publish: Outcome = SERVED,
    wheels: Outcome = SERVED,
) -> Callable[[Arrange], Arrange]:
    """Add a row whose arrangement is the function below. ``told`` is what all three ways come to."""

    def add(arrange: Arrange) -> Arrange:
        BEHAVIOURS.append(
            Behaviour(arrange.__name__, who, does, source, arrange, pull or told, publish or told, wheels or told)
        )
        return arrange

    return add


def same(found: object, wanted: object) -> None:
    """What a check ends with."""
    assert found == wanted


def errors(code: str, message: str) -> bytes:
    """A refusal's body as the distribution specification has it."""
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
