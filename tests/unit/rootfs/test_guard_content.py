"""What requests may hold: elements, text, token ids, schemas, stops, media; each limit is opened by its variable."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench import payloads
from tests.helpers.guarded import JSON, Inner, ask, chat, guard_of, shown

SMALL = payloads.data_url(payloads.png(4, 4))


def tried(body: Any, **environment: str) -> tuple[int, str]:
    """Status, and what a refusal says; what is refused has not come through."""
    inner = Inner()
    got = ask(guard_of(inner, **environment), body)
    assert len(inner.bodies) == (got.status == 200)
    return got.status, "" if got.status == 200 else got.error


@pytest.mark.parametrize(
    "body",
    [
        chat(), chat(stop=["a", "b"], n=2, max_tokens=8, stream=True), shown(SMALL, {"url": SMALL}),
        {"model": "m", "prompt": list(range(150_000))}, {"model": "m", "prompt": [[1, 2], [3]]},
        {"model": "m", "prompt": ["a", "b"]}, chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"video_url": {"type": "string"}, "n": {"type": "integer"}}}}}]),
        chat(response_format={"type": "json_schema", "json_schema": {"schema": {"enum": ["a"] * 400}}}),
        chat(chat_template=None, mm_processor_kwargs=None, logit_bias={"17": 1.5}),
        chat([{"type": "image_url", "image_url": {"url": None}, "uuid": "seen"}]),
        chat([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": SMALL[22:]}}]),
    ],
)  # fmt: skip
def test_ordinary_requests_come_through_as_they_are(body: dict[str, Any]) -> None:
    inner = Inner()
    raw = json.dumps(body, indent=1).encode()
    assert ask(guard_of(inner), raw).status == 200
    assert inner.bodies == [raw]
    assert dict(inner.scopes[0]["headers"])[b"content-length"] == b"%d" % len(raw)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (payloads.wide_body("m", 1), 413, "CARDSTOCK_MAX_ELEMENTS"),
        (chat(x=[[]] * 20_000), 413, "CARDSTOCK_MAX_ELEMENTS"),
        (chat(x=[1] * 20_000), 413, "CARDSTOCK_MAX_ELEMENTS"),
        ({"prompt": [[]] * 20_000}, 413, "CARDSTOCK_MAX_ELEMENTS"),
        ({"prompt": [1] * 200_001}, 413, "CARDSTOCK_MAX_TOKEN_IDS"),
        ({"prompt": [5, -1]}, 400, "below 0"),
        ({"prompt": [[5], [-1]]}, 400, "below 0"),
        (chat(stop_token_ids=[-1]), 400, "below 0"),
        (chat(logit_bias={"-1": 1}), 400, "below 0"),
        (payloads.deep_body("m", 1), 413, "CARDSTOCK_MAX_DEPTH"),
        (payloads.quotes("m", 4), 413, "strings"),
        (b'{"x": "' + b"\\n" * 5_000_000 + b'"}', 413, "CARDSTOCK_MAX_TEXT_MB"),
        (chat("a" * (3 * 2**20)), 413, "CARDSTOCK_MAX_TEXT_MB"),
        (b'{"a": 1, "a": 2}', 400, "twice"),
        (b'{"a": NaN}', 400, "no number"),
        (b'{"a": "\\ud800"}', 400, "surrogate"),
        (b'{"\\ud800": 1}', 400, "surrogate"),
        (b'{"a": "\xff"}', 400, "UTF-8"),
        (json.dumps({"a": 1}).encode("utf-16"), 400, "UTF-8"),
        (b"[1]", 400, "object"),
        (b"{", 400, "JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", 400, "JSON"),
        (chat(stop="a" * 257), 400, "CARDSTOCK_MAX_STOP_LENGTH"),
        (chat(stop=["a"] * 17), 400, "CARDSTOCK_MAX_STOPS"),
        (chat(n=65), 400, "CARDSTOCK_MAX_ANSWERS"),
        (chat(structured_outputs={"choice": ["a"] * 501}), 413, "CARDSTOCK_MAX_CHOICES"),
        (chat(guided_choice=["a"] * 501), 413, "CARDSTOCK_MAX_CHOICES"),
        (chat(guided_json=json.dumps({"enum": ["a"] * 501})), 413, "CARDSTOCK_MAX_CHOICES"),
        (chat(guided_regex="a|" * 501), 413, "CARDSTOCK_MAX_CHOICES"),
        (chat(structured_outputs={"grammar": "root ::= " + '"a" | ' * 501}), 413, "CARDSTOCK_MAX_CHOICES"),
        (chat(response_format={"json_schema": {"schema": {"enum": ["a"] * 501}}}), 413, "CARDSTOCK_MAX_CHOICES"),
        (chat(text={"format": {"schema": {"anyOf": [{}] * 501}}}), 413, "CARDSTOCK_MAX_CHOICES"),
        (chat(tool_choice="required", tools=[{"enum": ["a"] * 501}]), 413, "CARDSTOCK_MAX_CHOICES"),
        ({"sampling_params": {"structured_outputs": {"choice": ["a"] * 501}}}, 413, "CARDSTOCK_MAX_CHOICES"),
        (chat(response_format={"json_schema": {"schema": {"title": "a" * 70_000}}}), 413, "CARDSTOCK_MAX_SCHEMA_KB"),
    ],
)  # fmt: skip
def test_what_is_too_large_or_wrong(body: Any, status: int, says: str) -> None:
    got, told = tried(body)
    assert got == status and says in told and len(told) < 400


CLOSED = [
    (chat([{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}]), "CARDSTOCK_VIDEO"),
    (chat([{"video_url": {"url": "data:video/mp4;base64,AAAA"}}]), "CARDSTOCK_VIDEO"),
    ({"prompt": "a", "prompt_embeds": "AAAA"}, "CARDSTOCK_EMBEDS"),
    (chat([{"type": "image_embeds", "image_embeds": "AAAA"}]), "CARDSTOCK_EMBEDS"),
    ({"token_ids": [1], "features": {"kwargs_data": {"image": ["AAAA"]}}}, "CARDSTOCK_EMBEDS"),
    (chat(chat_template="{{ 1 }}"), "CARDSTOCK_CHAT_TEMPLATE"),
    (chat(chat_template_kwargs={"chat_template": "{{ 1 }}"}), "CARDSTOCK_CHAT_TEMPLATE"),
    (chat(mm_processor_kwargs={"min_pixels": 10**9}), "CARDSTOCK_PROCESSOR_KWARGS"),
    (chat(media_io_kwargs={"video": {"num_frames": 10**6}}), "CARDSTOCK_PROCESSOR_KWARGS"),
]


@pytest.mark.parametrize(("body", "variable"), CLOSED)
def test_what_is_closed_is_opened_by_its_variable(body: dict[str, Any], variable: str) -> None:
    status, told = tried(body)
    assert status == 400 and f"{variable}=1" in told
    assert tried(body, **{variable: "1"})[0] == 200


RULES = [
    chat(structured_outputs={"regex": "(a+)+"}),
    chat(guided_regex="(a+)+"),
    chat(guided_grammar="root ::= root"),
    chat(guided_json={"type": "object"}, guided_whitespace_pattern="(a+)+"),
    chat(response_format={"json_schema": {"schema": {"properties": {"x": {"type": "string", "pattern": "(a+)+"}}}}}),
    chat(guided_json=json.dumps({"pattern": "(a+)+"})),
    chat(guided_json={"patternProperties": {"(a+)+": {}}}),
    chat(tool_choice="required", tools=[{"function": {"parameters": {"properties": {"x": {"pattern": "(a+)+"}}}}}]),
    chat(structured_outputs={"structural_tag": json.dumps({"format": {"type": "grammar", "grammar": "root ::= a"}})}),
    chat(guided_json={"$ref": "#"}),
    chat(guided_json={"properties": {"x": {"$ref": "#/properties/x"}}}),
    chat(guided_json={"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    chat(guided_json={"$defs": {"a": {"anyOf": [{"allOf": [{"$ref": "#/$defs/b"}]}]}, "b": {"$ref": "#/$defs/a"}}}),
]


@pytest.mark.parametrize("body", RULES)
def test_rules_are_taken_unless_they_are_closed(body: dict[str, Any]) -> None:
    assert tried(body)[0] == 200
    status, told = tried(body, CARDSTOCK_RULES="0")
    assert status == 400 and "CARDSTOCK_RULES=1" in told


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"pattern": {"type": "string"}}},
        {"$defs": {"a": {"properties": {"x": {"$ref": "#/$defs/a"}}}}, "properties": {"a": {"$ref": "#/$defs/a"}}},
        {"$defs": {"a": {"type": "string"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}},
    ],
)
def test_schemas_without_rules_are_taken_where_rules_are_closed(schema: dict[str, Any]) -> None:
    assert tried(chat(guided_json=schema), CARDSTOCK_RULES="0")[0] == 200
    assert tried(chat(guided_json=json.dumps(schema)), CARDSTOCK_RULES="0")[0] == 200


def test_sounds_are_never_taken() -> None:
    assert tried(chat([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]))[0] == 400


@pytest.mark.parametrize(
    ("body", "opened"),
    [
        (chat(x=[[]] * 20_000), {"CARDSTOCK_MAX_ELEMENTS": "50000"}),
        (chat("a" * (3 * 2**20)), {"CARDSTOCK_MAX_TEXT_MB": "4"}),
        (chat(stop=["a"] * 17), {"CARDSTOCK_MAX_STOPS": "17"}),
        (chat(guided_choice=["a"] * 501), {"CARDSTOCK_MAX_CHOICES": "501"}),
        (shown(*[SMALL] * 9), {"CARDSTOCK_MAX_IMAGES": "9"}),
        (shown(payloads.data_url(payloads.png(8000, 8000))),
         {"CARDSTOCK_MAX_IMAGE_MEGAPIXELS": "64", "CARDSTOCK_MAX_REQUEST_MEGAPIXELS": "64"}),
    ],
)  # fmt: skip
def test_limits_are_opened_by_their_variables(body: dict[str, Any], opened: dict[str, str]) -> None:
    status, told = tried(body)
    assert status in (400, 413) and next(iter(opened)) in told
    assert tried(body, **opened)[0] == 200


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("data:image/png;base64,AAAA", "cannot be read"),
        ("data:image/png;base64,!!!!", "not base64"),
        ("data:image/png,AAAA", "base64"),
        ("data:image/png;charset=a;base64,AAAA", "base64"),
        ("file:///etc/passwd", "must begin"),
        (" http://127.0.0.1/", "must begin"),
        ("http://127.0.0.1:8000/version", "fetches no picture"),
        ("HTTPS://example.org/a.png", "fetches no picture"),
        ({"url": {"url": SMALL}}, "must be a URL"),
        (17, "must be a URL"),
        ("data:image/png;base64," + "A" * (28 * 2**20), "CARDSTOCK_MAX_IMAGE_MB"),
        (payloads.data_url(payloads.png(8000, 8000)), "CARDSTOCK_MAX_IMAGE_MEGAPIXELS"),
    ],
)
def test_pictures_that_are_refused(url: Any, says: str) -> None:
    status, told = tried(shown(url))
    assert status in (400, 413) and says in told and "0x" not in told


def test_anthropics_pictures_are_looked_at_too() -> None:
    def source(**fields: Any) -> dict[str, Any]:
        return chat([{"type": "image", "source": fields}])

    bad = base64.b64encode(b"none").decode()
    for fields in (
        {"type": "url", "url": "http://127.0.0.1/"},
        {"type": "base64", "media_type": "image/png", "data": bad},
        {"type": "base64", "media_type": "x;base64,AAAA,image/png", "data": SMALL[22:]},
        {"type": "file", "file_id": "x"},
    ):
        assert tried(source(**fields))[0] == 400


def test_pixels_of_one_request_are_summed() -> None:
    url = payloads.data_url(payloads.png(5000, 8000))
    assert tried(shown(url, url))[0] == 200
    status, told = tried(shown(url, url, url))
    assert status == 413 and "CARDSTOCK_MAX_REQUEST_MEGAPIXELS" in told


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """A server of one picture and of redirects to it; its address and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("location", "/a.png")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(payloads.png(4, 4) if self.path == "/a.png" else b"none")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_pictures_are_fetched_by_the_guard_where_it_is_allowed(web: tuple[str, list[str]]) -> None:
    address, asked = web
    opened = {"CARDSTOCK_FETCH": "any", "CARDSTOCK_MEDIA_DOMAINS": "127.0.0.1"}
    inner = Inner()
    assert ask(guard_of(inner, **opened), shown({"url": f"{address}/a.png"}, SMALL)).status == 200
    content = inner.asked["messages"][0]["content"]
    assert [part["image_url"] for part in content[:2]] == [{"url": SMALL}, SMALL]
    assert dict(inner.scopes[0]["headers"])[b"content-length"] == b"%d" % len(inner.bodies[0])
    assert asked == ["/a.png"]
    for path, says in (("/b.png", "cannot be read"), ("/moved", "redirect")):
        status, told = tried(shown(f"{address}{path}"), **opened)
        assert status == 400 and says in told


@pytest.mark.parametrize(
    "opened",
    [{}, {"CARDSTOCK_FETCH": "off"}, {"CARDSTOCK_FETCH": "public"}, {"CARDSTOCK_MEDIA_DOMAINS": "127.0.0.1"},
     {"CARDSTOCK_FETCH": "any", "CARDSTOCK_MEDIA_DOMAINS": "example.org"}],
)  # fmt: skip
def test_nothing_is_fetched_where_it_is_not(web: tuple[str, list[str]], opened: dict[str, str]) -> None:
    address, asked = web
    assert tried(shown(f"{address}/a.png"), **opened)[0] == 400
    assert asked == []
    assert JSON["host"]
