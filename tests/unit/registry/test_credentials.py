"""Docker's logins: entries of config.json, and helpers that answer, fail, hang or say something else."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from images.core.errors import RegistryFailure
from images.registry import credentials
from images.registry.address import parse_repository
from images.registry.credentials import Login, find_login, read_config

HUB = "https://index.docker.io/v1/"
ME = {"auth": base64.b64encode(b"me:pass:word").decode()}
MINE = Login("me", "pass:word")
OTHER = {"auth": base64.b64encode(b"other:x").decode()}


class Docker:
    """A folder with config.json, and stand-ins for credential helpers first on $PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.said: list[str] = []

    def config(self, content: object) -> None:
        (self.folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))

    def helper(self, name: str, script: str) -> Path:
        """A helper; it writes each server that it is asked for into the file that is given back."""
        program, asked = self.bin / f"docker-credential-{name}", self.bin / f"{name}.asked"
        program.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 9\nread server\necho "$server" >>"{asked}"\n{script}\n')
        program.chmod(0o755)
        return asked

    def login(self, repository: str = "registry.example.com/team/wheels") -> Login | None:
        config = read_config({"DOCKER_CONFIG": str(self.folder)})
        return find_login(config, parse_repository(repository), self.said.append)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    return made


def answer(user: str, secret: str) -> str:
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret})}'"


# -- entries of config.json


@pytest.mark.parametrize(
    "key",
    [
        "registry.example.com",
        "https://registry.example.com",
        "https://registry.example.com/",
        "https://registry.example.com/v2/",
        "http://registry.example.com/v1/",
        "registry.example.com/team",
        "registry.example.com/team/wheels",
        "Registry.Example.com",
        "registry.example.com:443",
        "https://registry.example.com:443/v2/",
    ],
)
def test_a_key_with_or_without_scheme_and_path(docker: Docker, key: str) -> None:
    docker.config({"auths": {"example.com": OTHER, "registry.example.com:5000": OTHER, key: ME}})
    assert docker.login() == MINE


@pytest.mark.parametrize("name", ["docker.io/team/wheels", "index.docker.io/a/b", "registry-1.docker.io/a/b"])
@pytest.mark.parametrize("key", [HUB, "docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_has_one_login_under_all_of_its_names(docker: Docker, name: str, key: str) -> None:
    docker.config({"auths": {"registry.example.com": OTHER, key: ME}})
    assert docker.login(name) == MINE


def test_the_longest_path_that_holds_the_repository_comes_first(docker: Docker) -> None:
    host = "registry.example.com"
    docker.config({"auths": {host: OTHER, f"{host}/tea": OTHER, f"{host}/other": OTHER, f"{host}/team": ME}})
    assert docker.login() == MINE
    assert docker.login(f"{host}/elsewhere/x") == Login("other", "x")


@pytest.mark.parametrize(
    "entry, login",
    [
        ({"username": "me", "password": "pass"}, Login("me", "pass")),
        ({"identitytoken": "refresh"}, Login("", "", "refresh")),
        ({**ME, "identitytoken": "refresh"}, Login("me", "pass:word", "refresh")),
        ({"auth": base64.b64encode(b"00000000:").decode(), "identitytoken": "r"}, Login("00000000", "", "r")),
        ({"username": "<token>", "password": "refresh"}, Login("", "", "refresh")),
        ({}, None),
        ({"auth": ""}, None),
    ],
)
def test_what_an_entry_says(docker: Docker, entry: Mapping[str, str], login: Login | None) -> None:
    docker.config({"auths": {"registry.example.com": entry}})
    assert docker.login() == login


@pytest.mark.parametrize("entry", [{"auth": "not base64"}, {"auth": 7}, {"auth": "/w=="}, "me:pass", ["x"]])
def test_an_entry_that_cannot_be_read_is_told(docker: Docker, entry: object) -> None:
    docker.config({"auths": {"registry.example.com": entry, "other.example.com": ME}})
    with pytest.raises(RegistryFailure, match=r"login for registry\.example\.com cannot be read") as caught:
        docker.login()
    assert caught.value.exit_code == 6
    assert docker.login("other.example.com/team/wheels") == MINE  # only its own registry suffers


@pytest.mark.parametrize(
    "content", ["{", "[]", "7", '{"auths": [1]}', '{"credHelpers": "x"}', "[" * 100_000, " " * (5 << 20)]
)
def test_a_broken_config_is_told(docker: Docker, content: str) -> None:
    docker.config(content)
    with pytest.raises(RegistryFailure, match="logins cannot be read") as caught:
        docker.login()
    assert caught.value.where == str(docker.folder / "config.json")


def test_no_config_at_all(docker: Docker) -> None:
    assert docker.login() is None


def test_it_lies_in_the_home_folder(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(docker.folder))
    assert read_config({}).path == docker.folder / ".docker" / "config.json"


def test_no_secret_is_shown(docker: Docker) -> None:
    docker.config({"auths": {"registry.example.com": {**ME, "identitytoken": "refresh"}}})
    shown = f"{docker.login()!r} {read_config({'DOCKER_CONFIG': str(docker.folder)})!r}"
    assert "me" in shown
    assert not [secret for secret in ("pass:word", "refresh", ME["auth"]) if secret in shown]


# -- helpers


def test_a_helper_of_the_registry_comes_before_the_one_of_all(docker: Docker) -> None:
    docker.config({"credsStore": "all", "credHelpers": {"registry.example.com": "own"}})
    asked = docker.helper("own", answer("me", "pass:word"))
    of_all = docker.helper("all", answer("other", "x"))
    assert docker.login() == MINE
    assert asked.read_text() == "registry.example.com\n"
    assert docker.login("other.example.com/team/wheels") == Login("other", "x")
    assert of_all.read_text() == "other.example.com\n"


def test_a_helper_is_asked_for_docker_hub_by_dockers_own_name(docker: Docker) -> None:
    docker.config({"credsStore": "all"})
    asked = docker.helper("all", answer("me", "pass:word"))
    assert docker.login("docker.io/team/wheels") == MINE
    assert asked.read_text() == f"{HUB}\n"


def test_a_helper_is_asked_by_the_names_of_the_file_as_well(docker: Docker) -> None:
    docker.config({"credsStore": "all", "auths": {"https://registry.example.com/v2/": {}}})
    asked = docker.helper(
        "all",
        f'case "$server" in https*) {answer("me", "pass:word")} ;; '
        "*) echo credentials not found in native keychain; exit 1 ;; esac",
    )
    assert docker.login() == MINE
    assert asked.read_text().splitlines() == ["registry.example.com", "https://registry.example.com/v2/"]


def test_a_helper_that_gives_a_refresh_token(docker: Docker) -> None:
    docker.config({"credsStore": "all"})
    docker.helper("all", answer("<token>", "refresh"))
    assert docker.login() == Login("", "", "refresh")


def test_a_helper_without_this_login_is_no_news(docker: Docker) -> None:
    docker.config({"credsStore": "all"})
    docker.helper("all", "echo credentials not found in native keychain; exit 1")
    assert docker.login() is None
    assert docker.said == []


@pytest.mark.parametrize(
    "script, told",
    [
        ("echo the keyring is locked >&2; exit 1", "the keyring is locked"),
        ("echo no JSON with s3cret", "does not answer as a credential helper does"),
        ("echo '[1]'", "does not answer as a credential helper does"),
        ("""echo '{"Username": "me"}'""", "does not answer as a credential helper does"),
        ("""echo '{"Username": null, "Secret": "x"}'""", "does not answer as a credential helper does"),
        ("head -c 2000000 /dev/zero", "does not answer as a credential helper does"),
        ("exec sleep 60", "no end after 0.3 s"),
    ],
    ids=["refuses", "no JSON", "a list", "no secret", "no user", "too long", "hangs"],
)
def test_a_helper_that_is_broken_is_told_and_passed_over(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, script: str, told: str
) -> None:
    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 0.3 if "sleep" in script else 30.0)
    docker.config({"credsStore": "all", "auths": {"registry.example.com": ME}})
    asked = docker.helper("all", script)
    assert docker.login() == MINE
    assert len(docker.said) == 1
    assert told in docker.said[0]
    assert docker.said[0].startswith("docker-credential-all ") and docker.said[0].endswith(": passed over")
    assert "s3cret" not in docker.said[0]
    assert len(asked.read_text().splitlines()) == 1  # once is enough


@pytest.mark.parametrize("name", ["not-there", "../bin/own", "own; rm -rf x", "", "-x"])
def test_a_helper_that_cannot_run_is_told_and_passed_over(docker: Docker, name: str) -> None:
    docker.helper("own", answer("other", "x"))
    docker.config({"credHelpers": {"registry.example.com": name}, "auths": {"registry.example.com": ME}})
    assert docker.login() == MINE
    assert [line.endswith(": passed over") for line in docker.said] == ([True] if name else [])
