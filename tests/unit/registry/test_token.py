"""Token services: by GET and POST, with each kind of login; what refuses, lies, or would take a login in the open."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from images.core.errors import RegistryFailure
from images.registry import token
from images.registry.challenge import Challenge
from images.registry.credentials import Login
from images.registry.retry import TransientError
from images.registry.token import fetch_token
from images.registry.transport import Transport
from tests.helpers.registries import registry
from tests.helpers.registry_auth import Auth

SCOPE = "repository:team/wheels:pull"
ME = Login("me", "pass")
BASIC = f"Basic {base64.b64encode(b'me:pass').decode()}"
REFRESH = Login(refresh_token="refresh")


@dataclass
class Service:
    """A token service, on the registry's own host."""

    host: str
    auth: Auth

    def fetch(self, login: Login | None = None, service: str | None = "registry.test", scope: str = SCOPE) -> str:
        parameters = {"realm": f"http://{self.host}/token"}
        parameters |= {} if service is None else {"service": service}
        parameters |= {"scope": scope} if scope else {}
        return fetch_token(Transport(), self.host, Challenge("Bearer", parameters), login, ("the:usual:scope",))


@pytest.fixture
def service() -> Iterator[Service]:
    with registry() as (host, shelf):
        shelf.auth = Auth(users={"me": "pass"}, refresh_tokens={"refresh"}, anonymous=True)
        yield Service(host, shelf.auth)


def test_without_a_login(service: Service) -> None:
    assert service.fetch() in service.auth.issued
    (asked,) = service.auth.asked
    assert (asked.method, asked.authorization) == ("GET", "")
    assert asked.fields == {"service": ["registry.test"], "scope": [SCOPE]}


def test_with_user_and_password(service: Service) -> None:
    assert service.fetch(ME) in service.auth.issued
    (asked,) = service.auth.asked
    assert (asked.method, asked.authorization) == ("GET", BASIC)


def test_with_a_refresh_token(service: Service) -> None:
    assert service.fetch(REFRESH) in service.auth.issued
    (asked,) = service.auth.asked
    assert (asked.method, asked.authorization) == ("POST", "")
    assert asked.fields == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh"],
        "service": ["registry.test"],
        "scope": [SCOPE],
        "client_id": ["cardstock"],
    }


def test_a_service_without_oauth2_gets_user_and_password(service: Service) -> None:
    service.auth.oauth2 = False
    assert service.fetch(Login("me", "pass", "refresh")) in service.auth.issued
    assert [asked.method for asked in service.auth.asked] == ["POST", "GET"]
    assert service.auth.asked[1].authorization == BASIC


def test_a_service_without_oauth2_and_a_refresh_token_alone(service: Service) -> None:
    service.auth.oauth2 = False
    with pytest.raises(RegistryFailure, match="gives no token with a refresh token") as caught:
        service.fetch(REFRESH)
    assert "HTTP 404" in caught.value.cause


@pytest.mark.parametrize("service_name", ["", None])
def test_an_empty_service(service: Service, service_name: str | None) -> None:
    assert service.fetch(service=service_name) in service.auth.issued
    assert service.fetch(REFRESH, service=service_name) in service.auth.issued
    assert [asked.fields.get("service") for asked in service.auth.asked] == [None, [""]]


def test_several_scopes_and_none(service: Service) -> None:
    service.fetch(scope="a:b:pull c:d:pull,push")
    service.fetch(REFRESH, scope="a:b:pull c:d:pull,push")
    service.fetch(scope="")
    scopes = [asked.fields["scope"] for asked in service.auth.asked]
    assert scopes == [["a:b:pull", "c:d:pull,push"], ["a:b:pull c:d:pull,push"], ["the:usual:scope"]]


def test_a_query_in_the_realm_stays(service: Service) -> None:
    challenge = Challenge("Bearer", {"realm": f"http://{service.host}/token?tenant=7#part", "scope": SCOPE})
    fetch_token(Transport(), service.host, challenge, None, ())
    assert service.auth.asked[0].fields == {"tenant": ["7"], "scope": [SCOPE]}


def test_access_token_is_as_good_as_token(service: Service) -> None:
    service.auth.key = "access_token"
    assert service.fetch() in service.auth.issued


@pytest.mark.parametrize("login", [None, ME, REFRESH], ids=["nobody", "password", "refresh token"])
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_fault_that_may_pass(service: Service, login: Login | None, status: int) -> None:
    service.auth.faults, service.auth.after = [status], "7"
    with pytest.raises(TransientError, match=f"{service.host}: HTTP {status}") as caught:
        service.fetch(login)
    assert caught.value.wait == 7.0
    assert service.fetch(login) in service.auth.issued


@pytest.mark.parametrize(
    "login, words",
    [
        (Login("me", "wrong"), "with user and password"),
        (Login(refresh_token="old"), "with a refresh token"),
        (None, "without a login"),
    ],
)
def test_a_refusal_is_told(service: Service, login: Login | None, words: str) -> None:
    service.auth.anonymous = False
    with pytest.raises(RegistryFailure, match=f"the token service {service.host} gives no token {words}") as caught:
        service.fetch(login)
    assert caught.value.cause == "HTTP 401: UNAUTHORIZED: incorrect username or password"
    assert caught.value.do == f"docker login {service.host}, then run the same again"
    assert caught.value.where == f"http://{service.host}/token"
    assert not [secret for secret in ("wrong", "old") if secret in str(caught.value)]


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b"{}", b'{"token": 7}', b'{"token": ""}', b'{"token": "a\\r\\nX-Y: z"}', b"[" * 100_000],
    ids=["nothing", "html", "list", "empty", "number", "empty token", "a header of its own", "deep"],
)
def test_an_answer_without_a_token(service: Service, answer: bytes) -> None:
    service.auth.answer = answer
    with pytest.raises(RegistryFailure, match="answers without a token"):
        service.fetch()


def test_an_answer_without_measure(service: Service) -> None:
    service.auth.answer = b'{"token": "' + b"x" * (2 << 20) + b'"}'
    with pytest.raises(RegistryFailure, match="longer than 1048576 bytes"):
        service.fetch()


@pytest.mark.parametrize("realm", ["", "registry", "ftp://a.example/", "https://", "https://[", "file:///etc/passwd"])
def test_a_realm_that_cannot_be_asked(realm: str) -> None:
    with pytest.raises(RegistryFailure, match="names no token service that can be asked"):
        fetch_token(Transport(), "registry.example.com", Challenge("Bearer", {"realm": realm}), ME, ())


@pytest.mark.parametrize("login", [ME, REFRESH], ids=["password", "refresh token"])
@pytest.mark.parametrize(
    "host, realm",
    [
        ("registry.example.com", "http://registry.example.com/token"),
        ("registry.example.com", "HTTP://auth.example.com/token"),
        ("registry.example.com", "http://{here}/token"),
        ("127.0.0.1:5000", "http://auth.example.com/token"),
    ],
)
def test_no_login_goes_out_without_encryption(service: Service, login: Login, host: str, realm: str) -> None:
    realm = realm.format(here=service.host)
    with pytest.raises(RegistryFailure, match="without encryption") as caught:
        fetch_token(Transport(), host, Challenge("Bearer", {"realm": realm}), login, ())
    assert caught.value.exit_code == 6
    assert service.auth.asked == []


def test_a_slow_answer_has_an_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token, "_SECONDS", -1.0)
    with pytest.raises(TransientError, match="took longer"):
        service.fetch()
