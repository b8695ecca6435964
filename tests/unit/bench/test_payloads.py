"""What attacks are made of."""

from __future__ import annotations

import json
import zlib

import pytest

from bench import payloads


@pytest.mark.parametrize("make", [payloads.wide_body, payloads.deep_body, payloads.nested_lists, payloads.quotes])
def test_bodies_have_the_size_that_was_asked_for_and_name_the_model(make: object) -> None:
    body = make("tiny", 2)  # type: ignore[operator]
    assert 0.97 * 2 * payloads.MB < len(body) < 1.01 * 2 * payloads.MB
    assert body.startswith(b'{"model": "tiny", ')


def test_requests_that_a_parser_takes_are_json() -> None:
    assert json.loads(payloads.wide_body("t", 1))["messages"][:2] == [[], []]
    assert json.loads(payloads.nested_lists("t", 1, depth=3))["x"][0] == [[[]]]
    assert json.loads(payloads.long_stop("t", 5))["stop"] == "aaaaa"
    assert json.loads(payloads.chat("t", "x", seed=1))["seed"] == 1
    with pytest.raises(UnicodeEncodeError):
        json.loads(payloads.surrogate("t"))["messages"][0]["content"][0]["image_url"]["url"].encode()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_has_its_header_and_all_or_some_of_its_rows(channels: int) -> None:
    whole, cut = payloads.png(30, 20, channels), payloads.png(30, 20, channels, rows=2)
    for picture, rows in ((whole, 20), (cut, 2)):
        assert picture[16:24] == (30).to_bytes(4, "big") + (20).to_bytes(4, "big")
        at = picture.index(b"IDAT")
        length = int.from_bytes(picture[at - 4 : at], "big")
        assert zlib.decompress(picture[at + 4 : at + 4 + length]) == bytes(rows * (1 + 30 * channels))


def test_a_request_on_the_line_has_one_of_each_header() -> None:
    raw = payloads.request("/x", b"{}", origin="https://e", content_type="text/plain", content_length="")
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [b"POST /x HTTP/1.1", b"host: 127.0.0.1", b"content-type: text/plain",
                                   b"origin: https://e"]  # fmt: skip
    assert body == b"{}"
    assert not payloads.half_headers().endswith(b"\r\n\r\n")
    begun = payloads.begun_body(1)
    assert f"content-length: {payloads.MB + 1}".encode() in begun
    assert len(begun.partition(b"\r\n\r\n")[2]) == payloads.MB
