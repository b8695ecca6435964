"""A request's way through the guard: bodies within size, time and what all hold; answers as they come; errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bench import payloads
from tests.helpers.guarded import JSON, Inner, ask, asking, chat, guard_of, guard_settings, shown

STREAM = (b'data: {"a": 1}\n\n', b'data: {"b": "0x7f0123456789"}\n\n', b"data: [DONE]\n\n")


def test_a_streamed_answer_goes_out_as_it_comes() -> None:
    inner = Inner(parts=STREAM, kind="text/event-stream; charset=utf-8")
    got = ask(guard_of(inner), chat(stream=True))
    assert (got.status, tuple(got.sent)) == (200, STREAM)


def test_an_error_in_a_stream_has_no_address() -> None:
    error = b'data: {"error": {"message": "<X object at 0x7f0123456789>"}}\n\n'
    got = ask(guard_of(Inner(parts=[STREAM[0], error], kind="text/event-stream")), chat(stream=True))
    assert got.sent == [STREAM[0], b'data: {"error": {"message": "<X object at 0x...>"}}\n\n']


@pytest.mark.parametrize(
    "parts",
    [
        [b'{"message": "cannot identify <_io.BytesIO object at 0x7f0123456789>"}'],
        [b'{"message": "cannot identify <_io.BytesIO object at 0x7f01', b'23456789>"}'],
    ],
)
@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_addresses_are_cut_out_of_errors(status: int, parts: list[bytes]) -> None:
    got = ask(guard_of(Inner(status=status, parts=parts)), chat())
    assert got.status == status
    assert got.body == b'{"message": "cannot identify <_io.BytesIO object at 0x...>"}'
    assert got.headers["content-length"] == str(len(got.body))


def test_an_answer_that_is_no_error_is_not_touched() -> None:
    parts = [b'{"content": "it lies at 0x7f0123456789"}']
    assert ask(guard_of(Inner(parts=parts)), chat()).body == parts[0]


def test_a_long_error_is_cut_off() -> None:
    whole = ask(guard_of(Inner(status=400, parts=[b"a" * 2**16])), chat())
    assert whole.body == b"a" * 2**16
    got = ask(guard_of(Inner(status=400, kind="text/plain", parts=[b"a" * 2**15] * 3)), chat())
    assert got.status == 400 and got.error == "a" * 1000 + " ... (cut off)"
    assert (got.headers["content-type"], int(got.headers["content-length"])) == ("application/json", len(got.body))


def test_the_application_hears_that_the_client_is_gone() -> None:
    inner = Inner()
    assert ask(guard_of(inner), chat()).status == 200
    assert inner.after == ["http.disconnect"]


def test_a_client_that_goes_while_it_sends() -> None:
    inner = Inner()
    guard = guard_of(inner)

    async def going() -> list[Any]:
        sent: list[Any] = []
        messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(name.encode(), value.encode()) for name, value in JSON.items()]
        scope = {"type": "http", "method": "POST", "path": "/v1/x", "scheme": "http", "headers": headers}
        await guard(scope, receive, send)
        return sent

    assert asyncio.run(going()) == [] and inner.scopes == []
    assert guard.bodies.left == guard.settings.bodies


def test_a_body_in_pieces_comes_through_whole() -> None:
    inner = Inner()
    raw = json.dumps(chat("é" * 100_000)).encode()
    got = ask(guard_of(inner), [raw[at : at + 1000] for at in range(0, len(raw), 1000)])
    assert got.status == 200 and inner.bodies == [raw]


@pytest.mark.parametrize("told", [{"content-length": str(2**31)}, {}])
def test_a_body_that_is_too_large(told: dict[str, str]) -> None:
    guard = guard_of(Inner(), CARDSTOCK_MAX_BODY_MB="1")
    got = ask(guard, [b"a" * 2**19] * 3, headers={**JSON, **told})
    assert got.status == 413 and "CARDSTOCK_MAX_BODY_MB" in got.error
    assert guard.bodies.left == guard.settings.bodies


def test_who_asks_before_it_sends_is_told_at_once() -> None:
    headers = {**JSON, "content-length": str(2**31), "expect": "100-continue"}
    got = asyncio.run(asking(guard_of(Inner()), [], headers=headers, ends=False))
    assert (got.status, got.headers["connection"]) == (413, "close")


def test_a_body_that_does_not_end() -> None:
    guard = guard_of(Inner(), CARDSTOCK_BODY_TIMEOUT="1")
    got = asyncio.run(asking(guard, [b"{", b"}"], ends=False))
    assert (got.status, got.headers["connection"]) == (408, "close") and "CARDSTOCK_BODY_TIMEOUT" in got.error
    assert guard.bodies.left == guard.settings.bodies


def test_all_bodies_together() -> None:
    guard = guard_of(Inner(), CARDSTOCK_MAX_BODY_MB="1", CARDSTOCK_MAX_BODIES_MB="2", CARDSTOCK_BODY_TIMEOUT="1")

    async def several() -> list[Any]:
        slow = [asking(guard, [b"a" * 2**20], ends=False) for _ in range(2)]
        held = [asyncio.ensure_future(one) for one in slow]
        await asyncio.sleep(0.1)
        refused = await asking(guard, json.dumps(chat()).encode())
        await asyncio.gather(*held)
        return [refused, await asking(guard, json.dumps(chat()).encode())]

    refused, later = asyncio.run(several())
    assert (refused.status, later.status) == (503, 200)
    assert int(refused.headers["retry-after"]) > 0


def test_pixels_of_all_requests_wait_for_each_other() -> None:
    order: list[str] = []
    hold = asyncio.Event()

    async def slow(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        order.append("in")
        await hold.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    picture = json.dumps(shown(payloads.data_url(payloads.png(6000, 8000)))).encode()
    opened = {"CARDSTOCK_MAX_OPEN_MEGAPIXELS": "100", "CARDSTOCK_BODY_TIMEOUT": "1"}

    async def three() -> list[int]:
        guard = guard_of(slow, **opened)  # type: ignore[arg-type]
        asked = [asyncio.ensure_future(asking(guard, picture)) for _ in range(3)]
        await asyncio.sleep(0.3)
        assert order == ["in", "in"]  # 48 megapixels each: the third does not fit
        await asyncio.sleep(1.2)
        hold.set()
        got = [one.status for one in await asyncio.gather(*asked)]
        assert guard.pixels.left == guard.settings.pixels
        return got

    assert sorted(asyncio.run(three())) == [200, 200, 503]


def test_what_is_no_request_of_http() -> None:
    seen: list[str] = []
    sent: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    async def send(message: Any) -> None:
        sent.append(message)

    async def both() -> None:
        guard = guard_of(app)  # type: ignore[arg-type]
        await guard({"type": "lifespan"}, None, send)
        await guard({"type": "websocket", "path": "/v1/realtime", "headers": []}, None, send)

    asyncio.run(both())
    assert seen == ["lifespan"] and sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CARDSTOCK_MAX_BODY_MB", "0"), ("CARDSTOCK_MAX_BODY_MB", "-1"), ("CARDSTOCK_MAX_ELEMENTS", "many"),
        ("CARDSTOCK_MAX_DEPTH", "99999999999"), ("CARDSTOCK_VIDEO", "maybe"), ("CARDSTOCK_FETCH", "all"),
        ("CARDSTOCK_MAX_BODIES_MB", "1"), ("CARDSTOCK_MAX_IMAGE_MEGAPIXELS", "1000"),
    ],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        guard_settings.read({name: value})
