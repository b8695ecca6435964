"""Which login a registry gets: through its challenges, to its own host alone, and again when a token has ended."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.core.errors import RegistryFailure
from images.registry import artifact
from images.registry.artifact import ArtifactPart
from images.registry.client import Repository
from images.registry.descriptor import Blob, digest_of
from images.registry.retry import ATTEMPTS
from tests.helpers.registries import FakeRegistry, registry
from tests.helpers.registry_auth import BASIC, BEARER, Auth

KIND = "application/vnd.cardstock.test.v1"
DATA = bytes(range(256)) * 40
ME = base64.b64encode(b"me:pass").decode()
BOTH = {
    "Bearer, Basic": [f"{BEARER}, {BASIC}"],
    "Basic, Bearer": [f"{BASIC}, {BEARER}"],
    "Bearer and Basic": [BEARER, BASIC],
    "Basic and Bearer": [BASIC, BEARER],
    "Negotiate before both": ["Negotiate", BASIC, BEARER],
    "unquoted": ["Bearer realm={realm},service=registry.test", "Basic realm=x"],
}


class Place:
    """A repository of the registry in memory, and docker's logins."""

    def __init__(self, host: str, shelf: FakeRegistry, folder: Path) -> None:
        self.host, self.shelf, self.folder = host, shelf, folder
        self.auth = shelf.auth = Auth(users={"me": "pass"}, refresh_tokens={"refresh"})
        self.waits: list[float] = []
        self.said: list[str] = []
        self.repository = Repository(f"{host}/team/wheels", sleep=self.waits.append, say=self.said.append)

    def log_in(self, **entry: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps({"auths": {self.host: entry or {"auth": ME}}}))

    def blob(self) -> Blob:
        self.shelf.blobs[digest_of(DATA)] = DATA
        return Blob("application/zip", digest_of(DATA), len(DATA))

    def push_and_look(self, parts: list[ArtifactPart]) -> None:
        artifact.push(self.repository, "key", KIND, parts, {})
        assert artifact.look(self.repository, "key", KIND) is not None


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    with registry() as (host, shelf):
        yield Place(host, shelf, tmp_path / "docker")


@pytest.fixture
def files(tmp_path: Path) -> list[ArtifactPart]:
    (tmp_path / "x-1.whl").write_bytes(DATA)
    return [ArtifactPart(tmp_path / "x-1.whl", "application/zip")]


# -- what it asks for


def test_basic(place: Place, files: list[ArtifactPart]) -> None:
    place.auth.challenges = [BASIC]
    place.log_in()
    place.push_and_look(files)
    assert set(place.shelf.logins) == {"", f"Basic {ME}"}
    assert place.shelf.logins.count("") == 1  # asked once without, then with
    assert place.auth.asked == []


def test_a_token_for_user_and_password(place: Place, files: list[ArtifactPart]) -> None:
    place.log_in()
    place.push_and_look(files)
    assert [asked.fields["scope"] for asked in place.auth.asked] == [
        ["repository:team/wheels:pull"],
        ["repository:team/wheels:pull,push"],
    ]
    assert f"Basic {ME}" not in place.shelf.logins  # the password goes to the token service alone


def test_a_token_for_a_refresh_token(place: Place, files: list[ArtifactPart]) -> None:
    place.log_in(identitytoken="refresh")
    place.push_and_look(files)
    assert {asked.method for asked in place.auth.asked} == {"POST"}


def test_a_token_for_nobody(place: Place, tmp_path: Path) -> None:
    place.auth.anonymous = True
    place.repository.download(place.blob(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.parametrize("challenges", BOTH.values(), ids=list(BOTH))
def test_of_two_ways_the_token_comes_first(place: Place, files: list[ArtifactPart], challenges: list[str]) -> None:
    place.auth.challenges = challenges
    place.log_in()
    place.push_and_look(files)
    assert {login.partition(" ")[0] for login in place.shelf.logins} == {"", "Bearer"}


def test_where_no_token_can_be_had_basic_is_taken(place: Place, files: list[ArtifactPart]) -> None:
    place.auth.challenges, place.auth.answer = [BEARER, BASIC], b"<html>"
    place.log_in()
    place.push_and_look(files)
    assert set(place.shelf.logins) == {"", f"Basic {ME}"}


def test_a_token_that_ended_is_asked_for_again(place: Place) -> None:
    place.log_in()
    assert not place.repository.has_blob(digest_of(DATA))
    place.auth.issued.clear()
    assert not place.repository.has_blob(digest_of(DATA))
    assert place.shelf.logins == ["", "Bearer token-1", "Bearer token-1", "Bearer token-2"]
    assert place.waits == []


def test_a_token_service_that_stumbles_costs_waits(place: Place) -> None:
    place.log_in()
    place.auth.faults, place.auth.after = [429, 503], "7"
    assert place.repository.tags() == ()
    assert place.waits == [7.0, 7.0]
    assert f"{place.host}: HTTP 429" in place.said[0]


def test_a_token_service_that_stays_broken_is_told(place: Place) -> None:
    place.log_in()
    place.auth.faults = [503] * 50
    with pytest.raises(RegistryFailure, match="does not give or take the tags") as caught:
        place.repository.tags()
    assert f"{place.host}: HTTP 503" in caught.value.cause
    assert len(place.auth.asked) == ATTEMPTS  # not as often in each attempt


# -- what is said where it does not work


def test_no_login(place: Place, files: list[ArtifactPart]) -> None:
    place.auth.challenges = [BASIC]
    with pytest.raises(RegistryFailure, match="refuses to take"):
        artifact.push(place.repository, "key", KIND, files, {})
    with pytest.raises(RegistryFailure, match="refuses to give") as caught:
        place.repository.tags()
    assert caught.value.cause == f"HTTP 401: UNAUTHORIZED: log in; docker has no login for {place.host}"
    assert caught.value.do.startswith(f"docker login {place.host}")
    assert place.waits == []  # a refusal does not pass


def test_a_wrong_password(place: Place) -> None:
    place.auth.challenges = [BASIC]
    place.log_in(username="me", password="wrong")
    with pytest.raises(RegistryFailure, match="refuses to give") as caught:
        place.repository.tags()
    assert caught.value.cause == "HTTP 401: UNAUTHORIZED: log in"
    with pytest.raises(RegistryFailure, match="refuses to give"):
        place.repository.tags()
    assert len(place.shelf.logins) == 3  # user and password are not said again to the same refusal


@pytest.mark.parametrize(
    "offered, named", [("Negotiate", "Negotiate"), ("Digest realm=x, Negotiate", "Digest, Negotiate")]
)
def test_ways_that_are_not_spoken_here_are_named(place: Place, offered: str, named: str) -> None:
    place.auth.challenges = [offered]
    place.log_in()
    with pytest.raises(RegistryFailure, match="refuses to give") as caught:
        place.repository.tags()
    assert caught.value.cause.endswith(f"the registry offers {named}, and docker has no login of that kind")


def test_a_refresh_token_is_no_password(place: Place) -> None:
    place.auth.challenges = [BASIC]
    place.log_in(identitytoken="refresh")
    with pytest.raises(RegistryFailure) as caught:
        place.repository.tags()
    assert "the registry offers Basic, and docker has no login of that kind" in caught.value.cause
    assert place.shelf.logins == [""]


def test_a_broken_helper_is_told_once(place: Place) -> None:
    place.folder.mkdir()
    (place.folder / "config.json").write_text('{"credsStore": "not-there"}')
    place.auth.anonymous = True
    place.repository.tags()
    place.auth.issued.clear()
    place.repository.tags()
    assert len(place.auth.asked) == 2
    assert len(place.said) == 1
    assert "docker-credential-not-there cannot be asked for a login" in place.said[0]


# -- where a login goes


def test_blobs_on_another_host_are_fetched_without_the_login(place: Place, tmp_path: Path) -> None:
    place.log_in()
    blob = place.blob()
    with registry() as (other, elsewhere):
        place.shelf.elsewhere = other
        elsewhere.blobs[blob.digest] = DATA
        place.repository.download(blob, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert elsewhere.logins == [""]
    assert place.shelf.logins == ["", "Bearer token-1"]


def test_uploads_to_another_host_go_without_the_login(place: Place, files: list[ArtifactPart]) -> None:
    place.log_in()
    with registry() as (other, elsewhere):
        place.shelf.elsewhere = other
        place.repository.upload(files[0].path, digest_of(DATA))
    assert elsewhere.blobs == {digest_of(DATA): DATA}
    assert set(elsewhere.logins) == {""}


@pytest.mark.parametrize("challenge", [BASIC, BEARER])
def test_another_host_gets_no_login_by_asking(place: Place, tmp_path: Path, challenge: str) -> None:
    place.log_in()
    with registry() as (other, elsewhere):
        place.shelf.elsewhere = other
        elsewhere.auth = Auth([challenge], users={"me": "pass"})
        with pytest.raises(RegistryFailure, match="refuses to give") as caught:
            place.repository.download(place.blob(), tmp_path / "x")
    assert f"{other} is not the registry's own address, and gets no login" in caught.value.cause
    assert elsewhere.logins == [""]
    assert elsewhere.auth.asked == []


def test_netrc_does_not_replace_a_token(place: Place, files: list[ArtifactPart], tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login thief password x\n")
    place.log_in()
    with registry() as (other, elsewhere):
        place.shelf.elsewhere = other
        elsewhere.blobs[digest_of(DATA)] = DATA
        place.repository.download(place.blob(), tmp_path / "x")
    place.shelf.elsewhere = ""
    place.push_and_look(files)
    assert {login.partition(" ")[0] for login in place.shelf.logins} == {"", "Bearer"}
    assert {asked.authorization for asked in place.auth.asked} == {f"Basic {ME}"}
    assert elsewhere.logins == [""]


def test_a_token_service_elsewhere_sees_the_login_and_no_token(place: Place) -> None:
    place.log_in()
    with registry() as (other, elsewhere):
        elsewhere.auth = Auth(users={"me": "pass"}, issued=place.auth.issued)
        place.auth.realm = f"http://{other}/token"
        place.repository.tags()
    assert [asked.authorization for asked in elsewhere.auth.asked] == [f"Basic {ME}"]
    assert elsewhere.logins == []
