"""Who may ask: the key on every path, the Host, the Origin, and requests that a page of another site may send."""

from __future__ import annotations

import pytest

from tests.helpers.guarded import CHAT, JSON, Inner, ask, chat, guard_of

KEYED = {**JSON, "authorization": "Bearer secret"}
PATHS = ("/invocations", "/tokenize", "/metrics", "/load", "/version", "/docs", "/openapi.json", "/scale_elastic_ep",
         "/v1/models", "/health/", "/healthz", "//health", "/v1/health", "/ping/x", "/")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_the_key_is_asked_for_on_every_path(path: str, method: str) -> None:
    inner = Inner()
    got = ask(guard_of(inner, VLLM_API_KEY="secret"), path=path, method=method, headers={"host": "127.0.0.1"})
    assert (got.status, got.headers["www-authenticate"], inner.scopes) == (401, "Bearer", [])
    assert ask(guard_of(inner, VLLM_API_KEY="secret"), path=path, method=method, headers=KEYED).status == 200


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_health_is_told_to_everybody(path: str) -> None:
    guard = guard_of(Inner(), VLLM_API_KEY="secret")
    assert ask(guard, path=path, method="GET", headers={"host": "lb.example.org"}).status == 200


@pytest.mark.parametrize(
    "given", ["", "secret", "Bearer", "Bearer ", "Bearer wrong", "Bearer secretx", "Basic secret", "Bearer sécret"]
)
def test_a_wrong_key(given: str) -> None:
    guard = guard_of(Inner(), VLLM_API_KEY="secret")
    assert ask(guard, chat(), headers={**JSON, "authorization": given}).status == 401
    assert ask(guard, chat(), headers={**JSON, "authorization": "bearer secret"}).status == 200


def test_which_keys() -> None:
    for variable in ("VLLM_API_KEY", "CARDSTOCK_API_KEY"):
        guard = guard_of(Inner(), **{variable: "a"})
        assert ask(guard, chat(), headers=JSON).status == 401
        assert ask(guard, chat(), headers={**JSON, "authorization": "Bearer a"}).status == 200
    two = guard_of(Inner(), VLLM_API_KEY="a", CARDSTOCK_GUARD_KEYS='["b", "c"]')
    got = [ask(two, chat(), headers={**JSON, "authorization": f"Bearer {key}"}).status for key in "abc"]
    assert got == [401, 200, 200]
    assert ask(guard_of(Inner(), VLLM_API_KEY=""), chat()).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200), ("localhost", 200), ("[::1]:8000", 200), ("192.168.1.7:8000", 200), ("vllm:8000", 200),
        ("x.svc.cluster.local", 200), ("host.docker.internal:8000", 200),
        ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost.evil.example:8000", 403),
        ("a/health?", 400), ("127.0.0.1/x", 400), ("x/?", 400), ("x#", 400), ("u@127.0.0.1", 400), ("", 400),
    ],
)  # fmt: skip
def test_hosts(host: str, status: int) -> None:
    inner = Inner()
    got = ask(guard_of(inner), method="GET", path="/v1/models", headers={"host": host})
    assert (got.status, len(inner.scopes)) == (status, int(status == 200))
    if status == 403:
        assert "CARDSTOCK_ALLOWED_HOSTS" in got.error and "--allow-host" in got.error


def test_hosts_are_opened_by_name_and_altogether() -> None:
    for allowed in ("gpu.example.org", "*.example.org, other.org", "*"):
        guard = guard_of(Inner(), CARDSTOCK_ALLOWED_HOSTS=allowed)
        assert ask(guard, chat(), headers={**JSON, "host": "GPU.example.org:8000"}).status == 200
        assert ask(guard, chat(), headers={**JSON, "host": "a/health?"}).status == 400
    assert ask(guard_of(Inner()), chat(), headers={"content-type": "application/json"}).status == 200  # HTTP/1.0


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://127.0.0.1:8000", 200), ("http://127.0.0.1:81", 403)],
)
def test_origins(origin: str, status: int) -> None:
    for body in (chat(), b""):
        assert ask(guard_of(Inner()), body, headers={**JSON, "origin": origin}).status == status


def test_origins_are_opened_by_name() -> None:
    guard = guard_of(Inner(), CARDSTOCK_ALLOWED_ORIGINS="https://app.example.org", VLLM_API_KEY="secret")
    page = {**KEYED, "origin": "https://app.example.org"}
    assert ask(guard, chat(), headers=page).status == 200
    assert ask(guard, chat(), headers={**page, "origin": "https://evil.example"}).status == 403
    # The browser asks first, without the key; only such a question is let through.
    first = {"host": "127.0.0.1", "origin": "https://app.example.org", "access-control-request-method": "POST"}
    assert ask(guard, method="OPTIONS", headers=first).status == 200
    assert ask(guard, method="POST", headers=first).status == 401
    assert ask(guard, method="OPTIONS", headers={**first, "origin": "https://evil.example"}).status == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_page_may_send_unasked_is_no_json(kind: str) -> None:
    inner = Inner()
    got = ask(guard_of(inner), chat(), headers={**JSON, "content-type": kind})
    assert (got.status, inner.scopes) == (415, [])
    assert (
        ask(guard_of(inner), chat(), headers={**JSON, "content-type": "application/json; charset=utf-8"}).status == 200
    )


def test_a_page_of_another_site_without_an_origin() -> None:
    guard = guard_of(Inner())
    assert ask(guard, chat(), headers={**JSON, "sec-fetch-site": "cross-site"}).status == 403
    assert ask(guard, chat(), headers={**JSON, "sec-fetch-site": "same-origin"}).status == 200
    assert CHAT.startswith("/v1")
