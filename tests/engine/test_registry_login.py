"""Logins to a real registry: with user and password, and with tokens that it checks itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest

from images.core.errors import RegistryFailure
from images.registry import ArtifactPart, Repository, artifact
from tests.engine.real_registry import RealRegistry
from tests.engine.token_service import PASSWORD, REFRESH_TOKEN, USER, TokenService, token_service

KIND = "application/vnd.cardstock.test.v1"
DATA = bytes(range(256)) * 12_000
BASIC = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
PULL, PUSH = "repository:team/wheels:pull", "repository:team/wheels:pull,push"


class Docker:
    """Docker's config.json, and what is done with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheel = folder / "x-1.whl"
        self.wheel.write_bytes(DATA)

    def log_in(self, host: str, entry: Mapping[str, str]) -> None:
        (self.folder / "config.json").write_text(json.dumps({"auths": {host: entry}}))

    def push_and_fetch(self, host: str) -> None:
        repository = Repository(f"{host}/team/wheels", sleep=lambda _: None)
        artifact.push(repository, "key", KIND, [ArtifactPart(self.wheel, "application/zip")], {})
        found = artifact.look(repository, "key", KIND)
        assert found is not None
        (self.folder / "out").mkdir()
        artifact.fetch(repository, found, self.folder / "out")
        assert (self.folder / "out" / self.wheel.name).read_bytes() == DATA


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return Docker(tmp_path)


@contextmanager
def running(program: Path, folder: Path, auth: Mapping[str, object]) -> Iterator[RealRegistry]:
    made = RealRegistry(program, folder / "registry", auth)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenService]:
    with token_service(tmp_path) as made:
        yield made


def test_user_and_password(registry_program: Path, docker: Docker, tmp_path: Path) -> None:
    words = tmp_path / "htpasswd"
    words.write_bytes(f"{USER}:".encode() + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)))
    with running(registry_program, tmp_path, {"htpasswd": {"realm": "here", "path": str(words)}}) as registry:
        with pytest.raises(RegistryFailure, match="refuses to give") as caught:
            Repository(f"{registry.host}/team/wheels").tags()
        assert f"authentication required; docker has no login for {registry.host}" in caught.value.cause
        docker.log_in(registry.host, BASIC)
        docker.push_and_fetch(registry.host)


@pytest.mark.parametrize(
    "entry, method", [(BASIC, "GET"), ({"identitytoken": REFRESH_TOKEN}, "POST")], ids=["password", "refresh token"]
)
def test_tokens(
    registry_program: Path, docker: Docker, tokens: TokenService, tmp_path: Path, entry: Mapping[str, str], method: str
) -> None:
    with running(registry_program, tmp_path, tokens.settings) as registry:
        with pytest.raises(RegistryFailure, match="gives no token without a login"):
            Repository(f"{registry.host}/team/wheels").tags()
        tokens.asked.clear()
        docker.log_in(registry.host, entry)
        docker.push_and_fetch(registry.host)
    # In what order the registry names the two actions is its own matter, and changes.
    asked = [(how, [one.replace(":push,pull", ":pull,push") for one in scopes]) for how, scopes in tokens.asked]
    assert asked == [(method, [PULL]), (method, [PUSH])]
