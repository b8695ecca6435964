"""What comes to the demo page before gradio sees it."""

from __future__ import annotations

import asyncio
import platform
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from images.run.demo.settings import MB, Limits, Settings

sys.path.insert(0, str(Path(__file__).parents[4] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
from images.run.demo import guard

JOIN = "/gradio_api/queue/join"


class Client:
    """Asks an application in this thread."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A page that tells how many bytes came."""
    monkeypatch.setenv("CARDSTOCK_ALLOWED_HOSTS", "demo.example.org")
    monkeypatch.setenv("CARDSTOCK_ALLOWED_ORIGINS", "https://app.example.org")

    async def told(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    settings = Settings("http://x", "m", "127.0.0.1", 7860, tmp_path, Limits(picture_bytes=1000, video_bytes=1000))
    app = Starlette(
        routes=[Route("/{path:path}", told, methods=["GET", "POST"])],
        middleware=[Middleware(guard.Guard, settings=settings)],
    )
    return Client(app)


def test_what_is_asked_of_the_page_reaches_it_whole_with_the_policy(client: Client) -> None:
    answer = client.post(JOIN, json={"data": ["x" * 1000]}, headers={"Origin": "http://127.0.0.1:7860"})
    assert (answer.status_code, answer.text) == (200, "1013")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "a/health?"])
def test_a_name_that_is_not_the_pages_is_refused(client: Client, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 403 and "CARDSTOCK_ALLOWED_HOSTS" in answer.text
    assert "content-security-policy" in answer.headers


def test_names_and_pages_that_are_allowed_are_let_in(client: Client) -> None:
    for host in ("demo.example.org", "localhost:7860", "10.0.0.5:7860", platform.node()):
        assert client.get("/", headers={"Host": host}).status_code == 200
    assert client.post(JOIN, json={}, headers={"Origin": "https://app.example.org"}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8000"])
def test_pages_of_strangers_are_refused(client: Client, origin: str) -> None:
    assert client.post(JOIN, json={}, headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (JOIN, b'{"x": [' + b"[]," * 200_000 + b"[]]}", 400),
        (JOIN, b"[" * 1000, 400),
        (JOIN, b" " * (guard.MAX_ASKED + 1), 413),
        (guard.UPLOAD, b" " * (8 * 1000 + MB + 1), 413),
        (guard.UPLOAD, b"[" * 8000, 200),
    ],
)
def test_what_is_larger_than_people_send_is_refused(client: Client, path: str, body: bytes, status: int) -> None:
    assert client.post(path, content=body).status_code == status


def test_uploads_have_a_bounded_place(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_KEPT", 5000)
    assert client.post(guard.UPLOAD, content=b"x" * 900).status_code == 200
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "a.png").write_bytes(b"x" * 4500)
    answer = client.post(guard.UPLOAD, content=b"x" * 900)
    assert answer.status_code == 413 and "try again tomorrow" in answer.text


def test_uploads_that_come_in_at_once_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_KEPT", 5000)
    arrived: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        arrived.append(1)
        while len(arrived) < 2 and scope["path"] == guard.UPLOAD:
            await asyncio.sleep(0)  # until the other is here, or is refused and says so
        await PlainTextResponse("taken")(scope, receive, send)

    limits = Limits(picture_bytes=5000, video_bytes=5000)
    guarded = guard.Guard(app, Settings("http://x", "m", "127.0.0.1", 7860, tmp_path, limits))

    async def both() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://127.0.0.1") as client:
            first = asyncio.create_task(client.post(guard.UPLOAD, content=b"x" * 3000))
            while not arrived:
                await asyncio.sleep(0)
            second = await client.post(guard.UPLOAD, content=b"x" * 3000)
            arrived.append(1)
            third = (await first).status_code, (await client.post(guard.UPLOAD, content=b"x" * 3000)).status_code
            return [second.status_code, *third]

    assert asyncio.run(both()) == [413, 200, 200]


def test_as_many_files_are_kept_as_may_be(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_FILES", 3)
    for name in "abcd":
        (tmp_path / name).touch()
    answer = client.post(guard.UPLOAD, content=b"x")
    assert answer.status_code == 413 and "3 uploads" in answer.text


@pytest.mark.parametrize(
    ("method", "mode", "site", "status"),
    [
        ("GET", "no-cors", "cross-site", 403),  # <img src="http://127.0.0.1:7860/gradio_api/file=…">
        ("GET", "no-cors", "same-site", 403),  # of another port of this machine
        ("POST", "navigate", "cross-site", 403),
        ("GET", "navigate", "cross-site", 200),  # a link to the page
        ("GET", "cors", "same-origin", 200),
        ("POST", "cors", "same-origin", 200),
        ("GET", "navigate", "none", 200),
    ],
)
def test_what_a_strangers_page_would_load_is_refused(
    client: Client, method: str, mode: str, site: str, status: int
) -> None:
    answer = client.request(method, JOIN, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode})
    assert answer.status_code == status


def test_a_body_says_how_long_it_is(client: Client) -> None:
    assert client.post(JOIN, content=b"{}", headers={"Transfer-Encoding": "chunked"}).status_code == 411
    for length in ("x", "9" * 5000, "²"):
        answer = client.post(JOIN, content=b"{}", headers={"Content-Length": length.encode()})
        assert answer.status_code == 411


def test_a_file_that_goes_while_uploads_are_weighed_weighs_nothing(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Path) -> Any:
        raise FileNotFoundError

    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr(Path, "lstat", gone)
    assert list(guard._sizes(tmp_path)) == []


def scene(client: Client, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page sends when it receives these."""
    sent: list[dict[str, Any]] = []
    left = list(received)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(client.app(scope, receive, send))
    return sent


def test_a_strangers_websocket_is_closed_and_the_lifespan_is_gradios(client: Client) -> None:
    headers = [(b"host", b"evil.example")]
    socket = {"type": "websocket", "path": "/", "headers": headers, "subprotocols": []}
    assert scene(client, socket, {"type": "websocket.connect"}) == [{"type": "websocket.close", "code": 1008}]
    started = scene(client, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert [message["type"] for message in started] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_who_leaves_while_the_body_is_read_is_let_go() -> None:
    async def read() -> list[Any]:
        messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        again = await guard._looked_at(receive)
        return [await again(), await again()]

    first, then = asyncio.run(read())
    assert first["body"] == b"{" and then == {"type": "http.disconnect"}
