"""The server on transformers, with a model that is not one: the API's forms, refusals, streams, queue and limits."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from images.proof.tiny_model import picture

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import fetch  # type: ignore[import-not-found,unused-ignore]
import server  # type: ignore[import-not-found,unused-ignore]
import wire  # type: ignore[import-not-found,unused-ignore]

END = 256


@dataclass(frozen=True)
class FakePrompt:
    length: int


@dataclass
class FakeEngine:
    """Says the bytes of ``answer``, one a token, then ends; ``hold`` stops it before each token until set."""

    answer: bytes = b"It is red."
    max_model_len: int = 100
    defaults: Any = field(default_factory=wire.Sampling)
    ends: frozenset[int] = frozenset({END})
    healthy: bool = True
    fails: Exception | None = None
    hold: threading.Event | None = None
    said: list[int] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    running: int = 0
    most: int = 0

    def decode(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i != END).decode(errors="replace")

    def prepare(self, chat: Any, pictures: Sequence[bytes]) -> FakePrompt:
        self.pictures += pictures
        if b"broken" in pictures:
            raise wire.ApiError(400, "the picture cannot be read", param="messages", code="invalid_image")
        return FakePrompt(sum(len(part) for m in chat.messages for part in m.parts if isinstance(part, str)))

    def generate(self, prompt: Any, sampling: Any, limit: int, emit: Callable[[Any], bool]) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.fails:
                raise self.fails
            for token in [*self.answer, END]:
                if self.hold:
                    self.hold.wait(10)
                self.said.append(token)
                if emit(wire.Token(token, -0.5, ((token, -0.5), (33, -2.0)))):
                    return
        finally:
            self.running -= 1


def client_of(engine: FakeEngine, **settings: Any) -> TestClient:
    return TestClient(server.create_app(engine, server.Settings(models=("tiny", "alias"), **settings)))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client(engine: FakeEngine) -> Iterator[TestClient]:
    with client_of(engine) as client:
        yield client


def ask(text: Any = "What colour?", **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}


def shown(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What colour?"}]


def post(client: TestClient, body: Any, **more: Any) -> Any:
    return client.post("/v1/chat/completions", json=body, **more)


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) if line != "[DONE]" else line for line in lines]


def test_health_follows_the_engine(client: TestClient, engine: FakeEngine) -> None:
    assert client.get("/health").status_code == 200
    engine.healthy = False
    assert client.get("/health").status_code == 503


def test_models_lists_every_served_name(client: TestClient) -> None:
    body = client.get("/v1/models").json()
    assert [(model["id"], model["max_model_len"]) for model in body["data"]] == [("tiny", 100), ("alias", 100)]


def test_an_answer_in_openais_form(client: TestClient) -> None:
    body = post(client, ask(temperature=0)).json()
    choice = body["choices"][0]
    assert body["object"] == "chat.completion" and body["id"].startswith("chatcmpl-") and body["model"] == "tiny"
    assert choice["message"] == {"role": "assistant", "content": "It is red."}
    assert choice["finish_reason"] == "stop" and choice["logprobs"] is None
    assert body["usage"] == {"prompt_tokens": 12, "completion_tokens": 11, "total_tokens": 23}


def test_max_tokens_ends_with_length(client: TestClient) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        choice = post(client, ask(**{name: 5})).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("It is", "length")


def test_a_stop_text_ends_the_answer_and_is_not_shown(client: TestClient) -> None:
    choice = post(client, ask(stop=["s r", "never"])).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("It i", "stop")


def test_logprobs_come_with_alternatives(client: TestClient) -> None:
    content = post(client, ask(logprobs=True, top_logprobs=2)).json()["choices"][0]["logprobs"]["content"]
    assert len(content) == 11 and content[0]["token"] == "I" and content[0]["logprob"] == -0.5
    assert [entry["token"] for entry in content[0]["top_logprobs"]] == ["I", "!"]
    assert content[0]["bytes"] == [73]


def test_a_stream_has_role_text_reason_usage_and_done(client: TestClient) -> None:
    response = post(client, ask(stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    first, *middle, usage, done = events(response.text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in middle) == "It is red."
    assert [chunk["choices"][0]["finish_reason"] for chunk in middle] == [None] * 10 + ["stop"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 11
    assert done == "[DONE]" and len({chunk["id"] for chunk in [first, *middle, usage]}) == 1


def test_a_stream_never_cuts_a_character_or_shows_the_start_of_a_stop_text() -> None:
    with client_of(FakeEngine(answer="é漢🙂ENd END.".encode())) as client:
        chunks = events(post(client, ask(stream=True, stop="END")).text)[1:-1]
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(texts) == "é漢🙂ENd " and not any("\ufffd" in text for text in texts)


def test_a_picture_reaches_the_engine_byte_for_byte(client: TestClient, engine: FakeEngine) -> None:
    assert post(client, ask(shown(picture.data_url("red")))).status_code == 200
    assert engine.pictures == [picture.png("red")]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (ask(model="gpt-4"), 404, "model"),
        ({"messages": []}, 404, "model"),
        ([], 400, None),
        (ask(messages=[]), 400, "messages"),
        (ask(messages=["hi"]), 400, "messages"),
        (ask(messages=[{"role": "wizard", "content": "x"}]), 400, "messages"),
        (ask(messages=[{"role": "user", "content": None}]), 400, "messages"),
        (ask([{"type": "video_url", "video_url": {"url": "x"}}]), 400, "messages"),
        (ask(messages=[{"role": "system", "content": shown("data:,x")}]), 400, "messages"),
        (ask(temperature=-1), 400, "temperature"),
        (ask(temperature="hot"), 400, "temperature"),
        (ask(temperature=True), 400, "temperature"),
        (ask(top_p=1.5), 400, "top_p"),
        (ask(max_tokens=0), 400, "max_tokens"),
        (ask(max_completion_tokens=1.5), 400, "max_completion_tokens"),
        (ask(seed="x"), 400, "seed"),
        (ask(stop=[""]), 400, "stop"),
        (ask(stop=["a"] * 5), 400, "stop"),
        (ask(stream="yes"), 400, "stream"),
        (ask(top_logprobs=2), 400, "top_logprobs"),
        (ask(n=2), 400, "n"),
        (ask(tools=[{}]), 400, "tools"),
        (ask(response_format={"type": "json_object"}), 400, "response_format"),
        (ask("x" * 101), 400, "messages"),
        (ask("x" * 60, max_tokens=50), 400, "messages"),
        (ask(shown("file:///etc/passwd")), 400, "messages"),
        (ask(shown("data:image/png;base64,%%%")), 400, "messages"),
        (ask(shown("data:,broken")), 400, "messages"),
        (ask(shown("data:,x")[:1] * 9), 400, "messages"),
    ],
)
def test_a_bad_request_is_refused_in_openais_form(
    client: TestClient, body: Any, status: int, param: str | None
) -> None:
    response = post(client, body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (status, "invalid_request_error", param)
    assert error["message"]
    assert post(client, ask()).status_code == 200, "the place in the queue was given back"


def test_no_json_too_much_and_no_such_path(client: TestClient) -> None:
    assert client.post("/v1/chat/completions", content=b"{").status_code == 400
    assert client.post("/v1/chat/completions", content=b"[" * 100_000).status_code == 400
    assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found"
    with client_of(FakeEngine(), max_body=1000) as small:
        assert post(small, ask("x" * 2000)).status_code == 413


def test_a_key_is_asked_for_where_one_is_set() -> None:
    with client_of(FakeEngine(), api_key="s3cret") as client:
        assert client.get("/health").status_code == 200
        assert post(client, ask()).status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert post(client, ask(), headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_a_failure_is_a_500_or_what_the_engine_says_and_the_next_request_works(engine: FakeEngine) -> None:
    with client_of(engine) as client:
        engine.fails = wire.ApiError(503, "out of GPU memory")
        assert post(client, ask()).json()["error"]["message"] == "out of GPU memory"
        assert events(post(client, ask(stream=True)).text)[-2:] == [
            {"error": {"message": "out of GPU memory", "type": "server_error", "param": None, "code": None}},
            "[DONE]",
        ]
    with TestClient(server.create_app(engine, server.Settings(("tiny",))), raise_server_exceptions=False) as client:
        engine.fails = RuntimeError("secret detail")
        response = post(client, ask())
        assert response.status_code == 500 and "secret" not in response.text
        assert "secret" not in post(client, ask(stream=True)).text
        engine.fails = None
        assert post(client, ask()).status_code == 200


def test_metrics_count_answers_refusals_and_tokens(engine: FakeEngine) -> None:
    with client_of(engine) as client:
        post(client, ask())
        post(client, ask(stream=True))
        post(client, ask(temperature=-1))
        engine.fails = wire.ApiError(503, "out of GPU memory")
        post(client, ask())
        page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    rows = dict(line.rsplit(" ", 1) for line in page.text.splitlines() if not line.startswith("#"))
    assert float(rows.pop("cardstock_request_seconds_total")) >= 0
    assert rows == {
        'cardstock_requests_ended_total{finished_reason="failed"}': "1",
        'cardstock_requests_ended_total{finished_reason="stop"}': "2",
        'cardstock_requests_refused_total{status="400"}': "1",
        'cardstock_requests_refused_total{status="503"}': "1",
        "cardstock_prompt_tokens_total": "36",
        "cardstock_generation_tokens_total": "22",
        "cardstock_num_requests_running": "0",
        "cardstock_num_requests_waiting": "0",
    }
    assert page.text.count("# TYPE cardstock_") == 7


# -- more than one client, at the level of ASGI, where a client can leave


class Caller:
    """One request: sends its body, then stays until it leaves; what came back is in ``sent``."""

    def __init__(self, app: Any, body: dict[str, Any]) -> None:
        self.app, self.body, self.sent = app, json.dumps(body).encode(), list[dict[str, Any]]()
        self.left = asyncio.Event()
        self.asked = False
        self.task = asyncio.create_task(self._call())

    async def _call(self) -> None:
        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"", "query_string": b"",
            "headers": [], "scheme": "http", "server": ("x", 80), "client": ("y", 1), "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.3"}, "root_path": "",
        }  # fmt: skip
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return next((message["status"] for message in self.sent if "status" in message), None)


async def until(what: Callable[[], bool]) -> None:
    for _ in range(500):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in 5 s")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_generation(stream: bool) -> None:
    async def scene() -> None:
        hold = threading.Event()
        engine = FakeEngine(answer=b"x" * 60, hold=hold)
        app = server.create_app(engine, server.Settings(("tiny",)))
        caller = Caller(app, ask(stream=stream))
        await until(lambda: engine.running == 1)
        caller.left.set()
        await asyncio.wait_for(caller.task, 5)
        hold.set()
        await until(lambda: engine.running == 0)
        assert len(engine.said) <= 2
        after = Caller(app, ask())
        await asyncio.wait_for(after.task, 5)
        assert after.status == 200

    asyncio.run(scene())


def test_one_at_a_time_a_bounded_queue_and_a_place_freed_by_leaving() -> None:
    async def scene() -> None:
        hold = threading.Event()
        engine = FakeEngine(hold=hold)
        app = server.create_app(engine, server.Settings(("tiny",), max_queue=2))
        callers = [Caller(app, ask()) for _ in range(3)]
        await until(lambda: engine.running == 1)
        refused = Caller(app, ask())
        await asyncio.wait_for(refused.task, 5)
        assert refused.status == 503
        assert (b"retry-after", b"1") in refused.sent[0]["headers"]
        leaver = next(c for c in callers[1:])
        leaver.left.set()
        await asyncio.wait_for(leaver.task, 5)
        late = Caller(app, ask())
        await asyncio.sleep(0.05)
        hold.set()
        for caller in (callers[0], callers[2], late):
            await asyncio.wait_for(caller.task, 5)
            assert caller.status == 200
        assert engine.most == 1

    asyncio.run(scene())


# -- the pieces


def test_parsing_never_fails_in_another_way_than_with_a_refusal() -> None:
    json_like = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
    names = ["messages", "temperature", "top_p", "stop", "seed", "stream", "stream_options", "logprobs", "top_k", "n"]

    @given(st.dictionaries(st.sampled_from(names), json_like))
    def check(body: dict[str, Any]) -> None:
        try:
            chat = wire.parse_chat({**ask(), **body}, ["tiny"], wire.Sampling(), 100, 8)
        except wire.ApiError as error:
            assert 400 <= error.status < 500
        else:
            assert 0 <= chat.sampling.temperature <= 2 and chat.messages

    check()


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_the_assembler_shows_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    data = text.encode()
    sampling = wire.Sampling(stop=tuple(stops))
    assembler = wire.Assembler(FakeEngine().decode, frozenset({END}), sampling, len(data) + 5)
    out = []
    for token in [*data, END]:
        piece = assembler.push(wire.Token(token))
        out.append(piece.text)
        if piece.finish:
            break
    assert piece.finish == "stop"
    said = "".join(out)
    assert text.startswith(said) and not any(stop in said for stop in stops)
    if not any(stop in text for stop in stops):
        assert said == text


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.0.1", False), ("172.16.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),
        ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:127.0.0.1", False), ("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_only_public_addresses_are_fetched_from(address: str, public: bool) -> None:
    assert fetch.allowed(address) is public


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """A web server on loopback: /ok, /big, /slow, /loop, /away (redirects), and anything else 404."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            places = {"/loop": "/loop", "/away": "/ok", "/out": "file:///etc/passwd"}
            status = 200 if self.path in ("/ok", "/big", "/slow") else 302 if self.path in places else 404
            self.send_response(status)
            if self.path in places:
                self.send_header("Location", places[self.path])
            self.end_headers()
            if self.path == "/ok":
                self.wfile.write(b"picture")
            if self.path == "/big":
                self.wfile.write(b"x" * 2000)
            for _ in range(100 if self.path == "/slow" else 0):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.05)

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", asked
    httpd.shutdown()
    httpd.server_close()


def test_a_private_address_is_not_even_connected_to(web: tuple[str, list[str]]) -> None:
    with pytest.raises(wire.ApiError, match="not a public address"):
        fetch.load(f"{web[0]}/ok", fetch.Limits())
    with pytest.raises(wire.ApiError, match="CARDSTOCK_FETCH=off"):
        fetch.load(f"{web[0]}/ok", fetch.Limits("off"))
    assert web[1] == []


def test_a_redirect_is_checked_like_the_first_address(
    web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "allowed", lambda _: len(web[1]) == 0)
    with pytest.raises(wire.ApiError, match="not a public address"):
        fetch.load(f"{web[0]}/away", fetch.Limits())
    assert web[1] == ["/away"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "answered 404"), ("/big", "larger than 1000"), ("/loop", "redirects"), ("/out", "http or https"),
        ("/slow", "too long|could not be fetched"),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_says_why(web: tuple[str, list[str]], path: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(wire.ApiError, match=reason) as caught:
        fetch.load(web[0] + path, fetch.Limits("any", 1000, 0.5))
    assert caught.value.status == 400 and time.monotonic() - start < 3


def test_a_fetched_picture_arrives_also_behind_a_redirect(web: tuple[str, list[str]]) -> None:
    assert fetch.load(f"{web[0]}/ok", fetch.Limits("any")) == b"picture"
    assert fetch.load(f"{web[0]}/away", fetch.Limits("any")) == b"picture"
    with pytest.raises(wire.ApiError, match="could not be fetched"):
        fetch.load("http://127.0.0.1:1/", fetch.Limits("any"))


def test_a_data_url_larger_than_allowed_is_refused() -> None:
    with pytest.raises(wire.ApiError, match="larger"):
        fetch.load(picture.data_url("red"), fetch.Limits(bytes=1000))


def test_settings_come_from_flags_and_environment() -> None:
    args = server.parse_arguments(["--model", "/models", "--served-model-name", "a", "b"])
    found = server.settings(args, {"CARDSTOCK_MAX_QUEUE": "3", "CARDSTOCK_FETCH": "off", "CARDSTOCK_API_KEY": "k"})
    assert (found.models, found.max_queue, found.fetch.mode, found.api_key) == (("a", "b"), 3, "off", "k")
    for bad in ({"CARDSTOCK_MAX_QUEUE": "-1"}, {"CARDSTOCK_MAX_IMAGES": "x"}, {"CARDSTOCK_FETCH": "yes"}):
        with pytest.raises(SystemExit, match="must be"):
            server.settings(args, bad)
