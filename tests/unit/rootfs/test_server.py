"""The server on transformers, with a model that is not one: the API's forms, refusals, streams, queue and limits."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from images.proof.tiny_model import picture
from tests.helpers.fake_backend import END, FakeBackend, ask, client_of, events, post, shown

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import openai_answers  # type: ignore[import-not-found,unused-ignore]
import settings  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from app import create_app  # type: ignore[import-not-found,unused-ignore]
from assembler import Assembler  # type: ignore[import-not-found,unused-ignore]
from chat import Sampling, Token  # type: ignore[import-not-found,unused-ignore]


@pytest.fixture
def engine() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def client(engine: FakeBackend) -> Iterator[TestClient]:
    with client_of(engine) as client:
        yield client


def test_health_follows_the_engine(client: TestClient, engine: FakeBackend) -> None:
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


def test_answers_have_the_forms_that_are_declared(client: TestClient) -> None:
    whole = post(client, ask(logprobs=True, top_logprobs=2)).json()
    stream = events(post(client, ask(stream=True, logprobs=True, stream_options={"include_usage": True})).text)[:-1]
    assert len(stream) == 13
    told = [
        (openai_answers.ChatCompletion, [whole]),
        (openai_answers.ChatCompletionChunk, stream),
        (openai_answers.ModelList, [client.get("/v1/models").json()]),
        (openai_answers.ErrorBody, [post(client, ask(n=2)).json()]),
    ]
    for form, bodies in told:
        adapter = TypeAdapter[Any](form)
        assert [adapter.validate_python(body) for body in bodies] == bodies  # what is not declared would be left out


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
    with client_of(FakeBackend(answer="é漢🙂ENd END.".encode())) as client:
        chunks = events(post(client, ask(stream=True, stop="END")).text)[1:-1]
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(texts) == "é漢🙂ENd " and not any("\ufffd" in text for text in texts)


def test_a_picture_reaches_the_engine_byte_for_byte(client: TestClient, engine: FakeBackend) -> None:
    assert post(client, ask(shown(picture.data_url("red")))).status_code == 200
    assert engine.pictures == [picture.png("red")]


def test_a_key_is_asked_for_where_one_is_set() -> None:
    with client_of(FakeBackend(), api_key="s3cret") as client:
        assert client.get("/health").status_code == 200
        assert post(client, ask()).status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        refused = client.post(
            "/v1/chat/completions", content=b"{", headers={b"Authorization": "Bearer sécret".encode()}
        )
        assert refused.status_code == 401, "the key comes before the body"
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"
        assert post(client, ask(), headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_a_failure_is_a_500_or_what_the_engine_says_and_the_next_request_works(engine: FakeBackend) -> None:
    with client_of(engine) as client:
        engine.fails = ApiError(503, "out of GPU memory")
        assert post(client, ask()).json()["error"]["message"] == "out of GPU memory"
        assert events(post(client, ask(stream=True)).text)[-2:] == [
            {"error": {"message": "out of GPU memory", "type": "server_error", "param": None, "code": None}},
            "[DONE]",
        ]
    with TestClient(
        create_app(engine, settings.Settings(("tiny",))), "http://localhost", raise_server_exceptions=False
    ) as client:
        engine.fails = RuntimeError("secret detail")
        response = post(client, ask())
        assert response.status_code == 500 and "secret" not in response.text
        assert "secret" not in post(client, ask(stream=True)).text
        engine.fails = None
        assert post(client, ask()).status_code == 200


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
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "scheme": "http", "server": ("x", 80), "client": ("y", 1), "http_version": "1.1",
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
        engine = FakeBackend(answer=b"x" * 60, hold=hold)
        app = create_app(engine, settings.Settings(("tiny",)))
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
        engine = FakeBackend(hold=hold)
        app = create_app(engine, settings.Settings(("tiny",), max_queue=2))
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


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_the_assembler_shows_the_text_up_to_the_first_stop(text: str, stops: list[str]) -> None:
    data = text.encode()
    sampling = Sampling(stop=tuple(stops))
    assembler = Assembler(FakeBackend().decode, frozenset({END}), sampling, len(data) + 5)
    out = []
    for token in [*data, END]:
        piece = assembler.push(Token(token))
        out.append(piece.text)
        if piece.finish:
            break
    assert piece.finish == "stop"
    said = "".join(out)
    assert text.startswith(said) and not any(stop in said for stop in stops)
    if not any(stop in text for stop in stops):
        assert said == text


def test_settings_come_from_flags_and_environment() -> None:
    args = settings.parse_arguments(["--model", "/models", "--served-model-name", "a", "b"])
    found = settings.settings(args, {"CARDSTOCK_MAX_QUEUE": "3", "CARDSTOCK_FETCH": "off", "CARDSTOCK_API_KEY": "k"})
    assert (found.models, found.max_queue, found.fetch.mode, found.api_key) == (("a", "b"), 3, "off", "k")
    for bad in ({"CARDSTOCK_MAX_QUEUE": "-1"}, {"CARDSTOCK_MAX_IMAGES": "x"}, {"CARDSTOCK_FETCH": "yes"}):
        with pytest.raises(SystemExit, match="must be"):
            settings.settings(args, bad)
