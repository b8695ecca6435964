"""What a request to the server on transformers must be: its host, its page, the key, its type; and how it is read."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.helpers.fake_backend import FakeBackend, ask, client_of, post, shown
from tests.helpers.nonempty import nonempty
from tests.unit.rootfs.test_server import Caller, until

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import fetch  # type: ignore[import-not-found,unused-ignore]
import request_body  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from app import create_app  # type: ignore[import-not-found,unused-ignore]
from budget import Budget, Share  # type: ignore[import-not-found,unused-ignore]
from settings import Settings, parse_arguments, settings  # type: ignore[import-not-found,unused-ignore]

KEY = {"Authorization": "Bearer s3cret"}


@pytest.fixture
def client() -> Iterator[TestClient]:
    with client_of(FakeBackend()) as client:
        yield client


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_name_that_is_not_the_servers_is_not_answered(client: TestClient) -> None:
    for path in ("/health", "/v1/models", "/docs", "/nothing"):
        assert code(client.get(path, headers={"Host": "evil.example"})) == (403, "host_not_allowed")
    assert client.get("/health", headers={"Host": "10.0.0.7:8000"}).status_code == 200
    with client_of(FakeBackend(), hosts=frozenset({"models.example.org"})) as named:
        assert named.get("/health", headers={"Host": "models.example.org"}).status_code == 200
        told = named.get("/health", headers={"Host": "evil.example"}).json()["error"]["message"]
        assert "CARDSTOCK_ALLOWED_HOSTS" in told and "evil.example" in told
    assert 'status="403"} 4.0' in client.get("/metrics").text


def test_a_page_of_strangers_is_not_answered(client: TestClient) -> None:
    assert code(post(client, ask(), headers={"Origin": "https://evil.example"})) == (403, "origin_not_allowed")
    assert code(post(client, ask(), headers={"Origin": "null"})) == (403, "origin_not_allowed")
    assert post(client, ask(), headers={"Origin": "http://localhost"}).status_code == 200
    asked = client.options("/v1/chat/completions", headers={"Origin": "http://localhost"})
    assert asked.status_code == 405 and "access-control-allow-origin" not in asked.headers


def test_a_page_that_is_allowed_may_ask_as_browsers_do() -> None:
    page = "https://app.example.org"
    with client_of(FakeBackend(), origins=frozenset({page}), api_key="s3cret") as client:
        wants = {"Origin": page, "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
        asked = client.options("/v1/chat/completions", headers=wants)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, page)
        assert (
            client.options("/v1/chat/completions", headers={**wants, "Origin": "https://x.example"}).status_code == 400
        )
        answer = post(client, ask(), headers={"Origin": page, **KEY})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
        assert post(client, ask(), headers={"Origin": "https://x.example", **KEY}).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_a_body_must_say_that_it_is_json(client: TestClient, kind: str) -> None:
    body = b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}]}'
    response = client.post("/v1/chat/completions", content=body, headers={"Content-Type": kind} if kind else {})
    assert code(response) == (415, "unsupported_media_type")
    for right in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        assert client.post("/v1/chat/completions", content=body, headers={"Content-Type": right}).status_code == 200


def test_the_key_is_asked_for_everywhere_but_on_health() -> None:
    with client_of(FakeBackend(), api_key="s3cret") as client:
        assert client.get("/health").status_code == 200
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing", "/health/", "//health"):
            assert code(client.get(path)) == (401, "invalid_api_key")
            assert client.get(path, headers={"Authorization": "Basic s3cret"}).status_code == 401
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path, headers=KEY).status_code == 200


def test_settings_of_hosts_pages_and_fetching_come_from_the_environment() -> None:
    args = parse_arguments(["--model", "/models"])
    plain = settings(args, {})
    assert (plain.hosts, plain.origins, plain.fetch.mode, plain.fetch.domains) == (frozenset(), frozenset(), "off", ())
    found = settings(args, {
        "CARDSTOCK_ALLOWED_HOSTS": "a.example.org", "CARDSTOCK_ALLOWED_ORIGINS": "https://b.example.org",
        "CARDSTOCK_MEDIA_DOMAINS": "c.example.org", "CARDSTOCK_MAX_TEXT_MB": "3", "CARDSTOCK_MAX_OPEN_MEGAPIXELS": "5",
        "CARDSTOCK_MAX_BODIES_MB": "7", "CARDSTOCK_HEADER_TIMEOUT": "1", "CARDSTOCK_BODY_TIMEOUT": "2",
        "CARDSTOCK_QUEUE_TIMEOUT": "4", "CARDSTOCK_MAX_CONNECTIONS": "9",
    })  # fmt: skip
    assert (found.hosts, found.origins) == ({"a.example.org"}, {"https://b.example.org"})
    assert (found.fetch.mode, found.fetch.domains) == ("public", ("c.example.org",))
    assert (found.max_text, found.max_bodies, found.max_open_pixels) == (3 * 2**20, 7 * 2**20, 5_000_000)
    assert (found.header_seconds, found.body_seconds, found.queue_seconds, found.max_connections) == (1, 2, 4, 9)
    off = settings(args, {"CARDSTOCK_MEDIA_DOMAINS": "c.example.org", "CARDSTOCK_FETCH": "off"})
    assert off.fetch.mode == "off", "off is off"


# -- how a body is read


async def blocks(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


def test_a_body_takes_its_share_as_it_comes_but_for_its_first_bytes() -> None:
    async def scene() -> None:
        budget = Budget(100_000, "bodies", "bytes")
        small, large, other = Share(budget), Share(budget), Share(budget)
        await request_body.read(blocks(30_000, 30_000), 200_000, small)
        assert small.amount == 0
        assert len(await request_body.read(blocks(60_000, 60_000, 20_000), 200_000, large)) == 140_000
        assert large.amount == 140_000 - request_body.FREE
        with pytest.raises(ApiError) as caught:
            await request_body.read(blocks(100_000), 200_000, other)
        assert caught.value.status == 503 and other.amount == 0
        with pytest.raises(ApiError) as caught:
            await request_body.read(blocks(60_000, 60_000), 100_000, other)
        assert caught.value.status == 413

    asyncio.run(scene())


def test_a_body_that_does_not_come_in_time_is_given_up() -> None:
    class Slow(Caller):
        async def _receive(self) -> dict[str, Any]:
            if not self.asked:
                self.asked = True
                return {"type": "http.request", "body": b"{", "more_body": True}
            await asyncio.sleep(60)
            raise AssertionError("it waited too long")

    async def scene() -> None:
        app = create_app(FakeBackend(), Settings(("tiny",), body_seconds=0))
        caller = Slow(app, ask())
        await asyncio.wait_for(caller.task, 5)
        assert caller.status == 408

    asyncio.run(scene())


# -- pictures: places and pixels are given back when the work has ended, not before


def test_a_place_is_kept_until_the_last_thread_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    hold, asked = threading.Event(), []

    def load(url: str, _: Any) -> bytes:
        asked.append(url)
        if url.endswith("0"):
            raise ApiError(400, "refused", param="messages")
        hold.wait(10)
        return b"x"

    async def scene() -> None:
        monkeypatch.setattr(fetch, "load", load)
        app = create_app(FakeBackend(), Settings(("tiny",), max_queue=1, fetch=fetch.Limits("any")))
        urls = [part for n in range(8) for part in shown(f"http://x/{n}")[:1]]
        first = Caller(app, ask(urls))
        await until(lambda: len(asked) == 2)
        second = Caller(app, ask(urls[1:]))
        await until(lambda: len(asked) == 4)
        third = Caller(app, ask())
        await asyncio.wait_for(third.task, 5)
        assert third.status == 503, "the first has failed, but its thread still works"
        second.left.set()
        await asyncio.wait_for(second.task, 5)
        fourth = Caller(app, ask())
        await asyncio.wait_for(fourth.task, 5)
        assert fourth.status == 503, "the second has left, but its threads still work"
        hold.set()
        await asyncio.wait_for(first.task, 5)
        assert first.status == 400 and len(asked) == 4, "what need not be fetched any more is not"

        async def gets_in() -> int | None:
            caller = Caller(app, ask())
            await asyncio.wait_for(caller.task, 5)
            return caller.status

        for _ in range(100):
            if await gets_in() == 200:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the places were not given back")

    asyncio.run(scene())


def test_pictures_fetched_for_one_hold_back_no_text_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()

    def load(_: str, __: Any) -> bytes:
        hold.wait(10)
        return b"x"

    async def scene() -> None:
        monkeypatch.setattr(fetch, "load", load)
        app = create_app(FakeBackend(), Settings(("tiny",), fetch=fetch.Limits("any")))
        slow = [Caller(app, ask([part for n in range(8) for part in shown(f"http://x/{n}")[:1]])) for _ in range(5)]
        await asyncio.sleep(0.05)
        beside = Caller(app, ask())
        await asyncio.wait_for(beside.task, 5)
        assert beside.status == 200 and not any(caller.status for caller in nonempty(slow))
        hold.set()
        for caller in slow:
            await asyncio.wait_for(caller.task, 5)
            assert caller.status == 200

    asyncio.run(scene())


def test_pixels_are_shared_waited_for_and_given_back() -> None:
    async def scene() -> None:
        hold = threading.Event()
        engine = FakeBackend(hold=hold, opened=10, kept=4)
        app = create_app(engine, Settings(("tiny",), max_open_pixels=12))
        picture = ask(shown("data:,x"))
        first = Caller(app, picture)
        await until(lambda: engine.running == 1)
        second, text = Caller(app, picture), Caller(app, ask())
        too_many = Caller(app, ask([*shown("data:,x")[:1] * 2]))
        await asyncio.wait_for(too_many.task, 5)
        assert too_many.status == 400, "more than all there is"
        await asyncio.sleep(0.05)
        assert engine.pictures == [b"x"], "the first holds 4 of 12, the second needs 10"
        hold.set()
        for caller in (first, second, text):
            await asyncio.wait_for(caller.task, 5)
            assert caller.status == 200
        assert engine.pictures == [b"x", b"x"]

    asyncio.run(scene())


def test_who_waits_for_pixels_may_leave_and_does_not_wait_for_ever() -> None:
    async def scene() -> None:
        hold = threading.Event()
        engine = FakeBackend(hold=hold, opened=10, kept=10)
        app = create_app(engine, Settings(("tiny",), max_open_pixels=12, max_queue=1, queue_seconds=0))
        first = Caller(app, ask(shown("data:,x")))
        await until(lambda: engine.running == 1)
        late = Caller(app, ask(shown("data:,x")))
        await asyncio.wait_for(late.task, 5)
        assert late.status == 503
        hold.set()
        await asyncio.wait_for(first.task, 5)
        assert first.status == 200

    asyncio.run(scene())


def test_long_prompts_that_are_being_made_hold_back_no_short_one() -> None:
    class Slow(FakeBackend):
        def prepare(self, chat: Any, pictures: Any) -> Any:
            if len(chat.messages[0].parts[0]) > 100:
                slow.append(1)
                hold.wait(10)
            return super().prepare(chat, pictures)

    hold, slow = threading.Event(), list[int]()

    async def scene() -> None:
        app = create_app(Slow(max_model_len=10**6), Settings(("tiny",)))
        long = [Caller(app, ask("x" * 40_000)) for _ in range(4)]
        await until(lambda: len(slow) == 2)
        beside = Caller(app, ask())
        await asyncio.wait_for(beside.task, 5)
        assert beside.status == 200
        hold.set()
        for caller in long:
            await asyncio.wait_for(caller.task, 5)
            assert caller.status == 200

    asyncio.run(scene())
