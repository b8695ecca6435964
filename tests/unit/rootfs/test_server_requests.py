"""What a request to the server on transformers may hold: what is refused and how that is said, and /openapi.json."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.fake_backend import FakeBackend, ask, client_of, post, shown

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import openai_api  # type: ignore[import-not-found,unused-ignore]
import request_body  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from chat import Image, Sampling  # type: ignore[import-not-found,unused-ignore]


@pytest.fixture
def client() -> Iterator[TestClient]:
    with client_of(FakeBackend()) as client:
        yield client


JSON = {"Content-Type": "application/json"}


def said(*parts: Any) -> dict[str, Any]:
    return ask(list(parts))


REFUSED = [
    # another type than the field's
    ([], "the body must be an object, not a list", None),
    (ask(model=None), "model must be a text, not null", "model"),
    ({"messages": []}, "model is missing", "model"),
    (ask(messages="hi"), 'messages must be a list, not "hi"', "messages"),
    (ask(messages=["hi"]), 'messages[0] must be an object, not "hi"', "messages"),
    (ask(None), "messages[0].content must be a text or a list of parts", "messages"),
    (said("hi"), 'messages[0].content[0] must be an object, not "hi"', "messages"),
    (said({"type": "text", "text": 5}), "messages[0].content[0].text must be a text, not 5", "messages"),
    (said({"type": "image_url", "image_url": 5}), "messages[0].content[0].image_url must be an object, not 5",
     "messages"),
    (ask(temperature="hot"), 'temperature must be a number, not "hot"', "temperature"),
    (ask(temperature=True), "temperature must be a number, not true", "temperature"),
    (ask(top_p={}), "top_p must be a number, not an object", "top_p"),
    (ask(max_tokens="9" * 99), 'max_tokens must be a whole number, not "999999999999999999999999999999999999999…',
     "max_tokens"),
    (ask(max_completion_tokens=1.5), "max_completion_tokens must be a whole number, not 1.5", "max_completion_tokens"),
    (ask(seed=[]), "seed must be a whole number, not a list", "seed"),
    (ask(stop=5), "stop must be a text or a list of texts", "stop"),
    (ask(stop=["a", 5]), "stop[1] must be a text, not 5", "stop"),
    (ask(stream="yes"), 'stream must be true or false, not "yes"', "stream"),
    (ask(logprobs=1), "logprobs must be true or false, not 1", "logprobs"),
    (ask(stream_options=[]), "stream_options must be an object, not a list", "stream_options"),
    (ask(stream_options={"include_usage": 1}), "stream_options.include_usage must be true or false, not 1",
     "stream_options"),
    # the right type, another value than allowed
    (ask(messages=[]), "messages must not be empty", "messages"),
    (ask([]), "messages[0].content must not be empty", "messages"),
    (ask(messages=[{"role": "wizard", "content": "x"}]),
     "messages[0].role must be 'system', 'developer', 'user' or 'assistant', not \"wizard\"", "messages"),
    (ask(messages=[{"content": "x"}]), "messages[0].role is missing", "messages"),
    (ask(messages=[{"role": "user"}]), "messages[0].content is missing", "messages"),
    (said({}), "messages[0].content[0].type is missing", "messages"),
    (said({"type": "text", "text": "a"}, {"type": "video_url"}),
     "messages[0].content[1].type must be one of 'text', 'image_url', not 'video_url'", "messages"),
    (said({"type": "x" * 99}),
     f"messages[0].content[0].type must be one of 'text', 'image_url', not '{'x' * 40}…'", "messages"),
    (said({"type": "text"}), "messages[0].content[0].text is missing", "messages"),
    (said({"type": "image_url"}), "messages[0].content[0].image_url is missing", "messages"),
    (said({"type": "image_url", "image_url": {}}), "messages[0].content[0].image_url.url is missing", "messages"),
    (said({"type": "image_url", "image_url": ""}), "messages[0].content[0].image_url must not be empty", "messages"),
    (ask(messages=[{"role": "system", "content": shown("data:,x")}]),
     "messages[0]: only a user's message may hold pictures", "messages"),
    (ask(temperature=-1), "temperature must be at least 0, not -1", "temperature"),
    (ask(top_p=1.5), "top_p must be at most 1, not 1.5", "top_p"),
    (ask(repetition_penalty=0), "repetition_penalty must be at least 0.01, not 0", "repetition_penalty"),
    (ask(top_k=-1), "top_k must be at least 0, not -1", "top_k"),
    (ask(max_tokens=0), "max_tokens must be at least 1, not 0", "max_tokens"),
    (ask(max_tokens=101), "max_tokens must be at most 100, this model's longest sequence", "max_tokens"),
    (ask(seed=2**63), "seed must be at most 9223372036854775807, not 9223372036854775808", "seed"),
    (ask(stop=[""]), "stop[0] must not be empty", "stop"),
    (ask(stop="a" * 1025), "stop must have at most 1024 characters", "stop"),
    (ask(stop=["a"] * 5), "stop must hold at most 4, not 5", "stop"),
    (ask(logprobs=True, top_logprobs=21), "top_logprobs must be at most 20, not 21", "top_logprobs"),
    (ask(top_logprobs=2), "top_logprobs needs logprobs: true", "top_logprobs"),
    (ask(n=2), "n must be 1, not 2", "n"),
    (ask(tools=[{}]), "tools is not supported", "tools"),
    (ask(logit_bias={"5": 1}), "logit_bias is not supported", "logit_bias"),
    (ask(response_format={"type": "json_object"}), "response_format.type must be 'text', not \"json_object\"",
     "response_format"),
    # what only the server can tell
    (ask("x" * 101), "This model's maximum context length is 100 tokens: the prompt has 101, 1 are asked for",
     "messages"),
    (ask("x" * 60, max_tokens=50),
     "This model's maximum context length is 100 tokens: the prompt has 60, 50 are asked for", "messages"),
    (ask(shown("file:///etc/passwd")), "a picture's URL must begin with data:, http: or https:", "messages"),
    (ask(shown("data:,broken")), "the picture cannot be read", "messages"),
    (ask(shown("data:,x")[:1] * 9), "9 pictures, at most 8 are taken", "messages"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "sentence", "param"), REFUSED, ids=[sentence for _, sentence, _ in REFUSED])
def test_a_bad_request_is_refused_in_openais_form(
    client: TestClient, body: Any, sentence: str, param: str | None
) -> None:
    response = post(client, body)
    error = response.json()["error"]
    assert (error["message"], error["param"]) == (sentence, param)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert post(client, ask()).status_code == 200, "the place in the queue was given back"


def test_a_model_that_is_not_served_here_is_not_found(client: TestClient) -> None:
    response = post(client, ask(model="gpt-4"))
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "the model 'gpt-4' does not exist here: this server has tiny, alias",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_a_picture_that_is_not_base64_is_refused(client: TestClient) -> None:
    error = post(client, ask(shown("data:image/png;base64,%%%"))).json()["error"]
    assert error["message"].startswith("the data: URL is not base64") and error["code"] == "invalid_image_url"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "EOF"), (b"{", "EOF"), (b"model=tiny", "expected value at line 1 column 1"), (b"\xff", "expected value"),
        (b'{"temperature": NaN}', "expected value"), (b'{"model": "\\ud800"}', "hex escape"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "number out of range"), (b"{" * 20, "key must be a string"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_with_the_place(client: TestClient, body: bytes, why: str) -> None:
    response = client.post("/v1/chat/completions", content=body, headers=JSON)
    message = response.json()["error"]["message"]
    assert response.status_code == 400 and message.startswith("the body cannot be read as JSON: ") and why in message


def test_a_number_beyond_all_is_no_temperature(client: TestClient) -> None:
    body = b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}'
    response = client.post("/v1/chat/completions", content=body, headers=JSON)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "temperature must be a finite number, not Infinity"


def test_a_body_larger_than_allowed_and_a_path_that_is_not_there() -> None:
    with client_of(FakeBackend(), max_body=1000) as client:
        response = post(client, ask("x" * 2000))
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
        assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found"
        wrong = client.get("/v1/chat/completions")
        assert wrong.json()["error"]["message"] == "Method Not Allowed"
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert client.delete("/health").headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"[" * 100_000, 400, "nested deeper than 64"),
        (b'{"a": ' * 65 + b"1" + b"}" * 65, 400, "nested deeper than 64"),
        (b"[" + b"[]," * 100_000 + b"[]]", 400, "elements"), (b'""' * 300_000, 400, "elements"),
        (b'{"x": "' + b"a" * 3_000_000 + b'"}', 413, "beside its pictures"),
    ],
)  # fmt: skip
def test_what_would_cost_a_parser_too_much_is_not_parsed(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int, why: str
) -> None:
    monkeypatch.setattr(request_body, "parse", lambda _: pytest.fail("it was parsed"))
    response = client.post("/v1/chat/completions", content=body, headers=JSON)
    assert response.status_code == status and why in response.json()["error"]["message"]


def test_pictures_do_not_count_as_text_and_texts_that_look_like_pictures_do() -> None:
    with client_of(FakeBackend(), max_text=1000) as client:
        assert post(client, ask(shown("data:image/png;base64," + "A" * 4000))).status_code == 200
        response = post(client, ask("data:image/png;base64," + "A" * 4000))
        assert response.status_code == 413 and "characters" in response.json()["error"]["message"]


@pytest.mark.parametrize("half", ["\\ud800", "\\udfff", "\\ud83d\\ud83d", "x\\ud800y"])
def test_half_a_character_is_refused_wherever_it_stands(client: TestClient, half: str) -> None:
    places = (
        '{"role": "user", "content": "%s"}',
        '{"role": "%s", "content": "x"}',
        '{"role": "user", "content": [%s]}',
    )
    part = '{"type": "image_url", "image_url": {"url": "data:,%s"}}'
    for place in places:
        turn = place % (part % half if "[" in place else half)
        body = f'{{"model": "tiny", "messages": [{turn}]}}'.encode()
        assert client.post("/v1/chat/completions", content=body, headers=JSON).status_code == 400
    raw = b'{"model": "tiny", "messages": [{"role": "user", "content": "\xed\xa0\x80"}]}'
    assert client.post("/v1/chat/completions", content=raw, headers=JSON).status_code == 400


def test_a_request_as_clients_send_it_becomes_a_chat() -> None:
    body = {
        "model": "tiny",
        "messages": [
            {"role": "developer", "content": "Be brief.", "name": "x"},
            {"role": "user", "content": [*shown("http://x/a.png"), {"type": "image_url", "image_url": "data:,x"}]},
        ],
        "temperature": 0, "stop": "END", "max_tokens": 5, "max_completion_tokens": 7, "stream": None, "n": 1,
        "tools": [], "logit_bias": {}, "response_format": {"type": "text"}, "user": "me", "tool_choice": "none",
    }  # fmt: skip
    chat = openai_api.to_chat(request_body.check(body), ["tiny"], Sampling(top_k=3), 100, 8, 1000)
    system, user = chat.messages
    assert (system.role, system.parts) == ("system", ("Be brief.",))
    assert user.parts == (Image("http://x/a.png"), "What colour?", Image("data:,x"))
    assert chat.sampling == Sampling(temperature=0, top_k=3, stop=("END",), max_tokens=7)
    assert not chat.stream and not chat.usage


def test_one_fault_is_told_however_many_there_are() -> None:
    with pytest.raises(ApiError, match=r"^messages\[0\] must be an object, not 0$"):
        request_body.check(ask(messages=list(range(8000)), temperature="hot"))


@pytest.mark.parametrize(
    "body",
    [
        ask(messages=[{"role": "user", "content": "x"}] * 9000),
        ask([{"type": "text", "text": "x"}] * 9000),
        ask(messages=ask([{"type": "text", "text": "x"}] * 900)["messages"] * 10),
        ask(messages=list(range(9000))),
    ],
)
def test_a_conversation_of_more_parts_than_any_model_reads_is_not_looked_at(body: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=r"^messages hold 9000 parts, at most 8192 are taken$"):
        request_body.check(body)
    assert len(request_body.check(ask(messages=[{"role": "user", "content": "x"}] * 8192)).messages) == 8192


def test_checking_never_fails_in_another_way_than_with_a_refusal() -> None:
    json_like = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
    names = ["messages", "temperature", "top_p", "stop", "seed", "stream", "stream_options", "logprobs", "top_k", "n"]
    messages = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": json_like}), max_size=2)
    parts = st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image_url", "x"])}, optional={"text": json_like, "image_url": json_like}
    )

    @given(
        st.dictionaries(st.sampled_from(names), json_like)
        | st.fixed_dictionaries({"messages": messages})
        | st.lists(parts, max_size=3).map(lambda content: {"messages": [{"role": "user", "content": content}]})
    )
    def check(body: dict[str, Any]) -> None:
        try:
            chat = openai_api.to_chat(request_body.check({**ask(), **body}), ["tiny"], Sampling(), 100, 8, 1000)
        except ApiError as error:
            assert error.status == 400 and error.param
            assert error.message.startswith(error.param) or "pictures" in error.message
        else:
            assert 0 <= chat.sampling.temperature <= 2 and chat.messages

    check()


# -- /openapi.json and /docs


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    with client_of(FakeBackend()) as client:
        found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def test_the_description_names_every_path_and_how_it_may_end(description: dict[str, Any]) -> None:
    told = {path: sorted(next(iter(how.values()))["responses"]) for path, how in description["paths"].items()}
    assert told == {
        "/health": ["200"],
        "/metrics": ["200"],
        "/v1/models": ["200", "401"],
        "/v1/chat/completions": ["200", "400", "401", "403", "404", "408", "413", "415", "500", "503"],
    }
    chat = description["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert chat["security"] == [{"HTTPBearer": []}]


def test_the_description_tells_each_field_of_a_request(description: dict[str, Any]) -> None:
    chat = description["paths"]["/v1/chat/completions"]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatRequest"}
    forms = description["components"]["schemas"]
    fields = forms["ChatRequest"]["properties"]
    assert set(fields) == set(openai_api.ChatRequest.model_fields) and len(fields) == 20
    assert [name for name, field in fields.items() if not field.get("description")] == []
    assert forms["ChatRequest"]["required"] == ["model", "messages"]
    temperature = fields["temperature"]["anyOf"][0]
    assert (temperature["type"], temperature["minimum"], temperature["maximum"]) == ("number", 0, 2)
    assert forms["ChatMessage"]["properties"]["role"]["enum"] == ["system", "developer", "user", "assistant"]
    content = forms["ChatMessage"]["properties"]["content"]["anyOf"]
    assert content[0]["type"] == "string" and set(content[1]["items"]["discriminator"]["mapping"]) == {
        "text", "image_url"
    }  # fmt: skip


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        yield from (found for inner in value.values() for found in references(inner))
    if isinstance(value, list):
        yield from (found for inner in value for found in references(inner))


def test_every_form_that_is_named_is_there(description: dict[str, Any]) -> None:
    named = set(references(description))
    there = {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
    assert named == there and "#/components/schemas/ChatCompletionChunk" in named


def test_docs_is_a_page_that_shows_it(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert all(name in page.text for name in ("/v1/chat/completions", "ChatRequest", "max_completion_tokens"))


def test_docs_loads_nothing_and_runs_no_script(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert not [word for word in ("<script", "<img", "<link", "src=", "http://", "https://") if word in page.text]
    assert client.get("/redoc").status_code == 404
