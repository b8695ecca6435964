"""What a request's JSON says, looked at before vLLM sees it: its size in elements and text, and its media. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import json_shape  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from guard_settings import GuardSettings  # type: ignore[import-not-found,unused-ignore]

# Long lists of whole numbers are right there, and nowhere else: what is wrong costs vLLM kilobytes an element.
TOKEN_IDS = frozenset({"prompt", "prompt_token_ids", "token_ids", "tokens", "stop_token_ids", "allowed_token_ids"})
# Their values describe answers and tools: names of properties there are nobody's media.
SCHEMAS = frozenset(
    {"response_format", "structured_outputs", "guided_json", "tools", "functions", "tool_choice", "text",
     "output_format", "output_config", "metadata"}
)  # fmt: skip
_TYPED = re.compile(r"image/[\w.+-]{1,40}", re.ASCII)
_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Medium:
    """A picture or a video by its URL, which ``holder[key]`` is, or holds the data of."""

    url: str
    holder: dict[str, Any]
    key: str
    video: bool = False


@dataclass
class Content:
    """``elements`` without token ids; ``text`` in characters, without media's URLs; ``objects`` outside of schemas."""

    elements: int = 0
    token_ids: int = 0
    text: int = 0
    media: list[Medium] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)


def parse(raw: bytes, settings: GuardSettings) -> dict[str, Any]:
    """The JSON object of a body. Raises ApiError 400 and 413; nothing is built of a text that is too large.

    Only what every parser reads alike is taken: UTF-8, no key twice, no NaN. So vLLM sees what was looked at.
    """
    if too_large := json_shape.too_large(raw, settings.elements + settings.token_ids, settings.depth):
        limits = "CARDSTOCK_MAX_ELEMENTS, CARDSTOCK_MAX_TOKEN_IDS, CARDSTOCK_MAX_DEPTH"
        raise ApiError(413, f"{too_large} ({limits})", code="request_too_large")
    if raw.count(b"\\") > 2 * settings.text:  # each is a piece of work for whoever reads a string
        raise ApiError(413, "the request has too much text (CARDSTOCK_MAX_TEXT_MB)", code="request_too_large")
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise ApiError(400, "the request is not UTF-8", code="invalid_json") from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the request is not JSON: {str(error)[:200]}", code="invalid_json") from error
    if not isinstance(found, dict):
        raise ApiError(400, "the request must be a JSON object", code="invalid_json")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def look(body: dict[str, Any], raw: bytes, settings: GuardSettings) -> Content:
    """What is in a parsed body. Raises ApiError 400 and 413."""
    found, escapes = Content(), _ESCAPE.search(raw) is not None
    for key, value, schema in _walk(body):
        if isinstance(value, str):
            found.text += len(value)
            if escapes and not value.isascii():
                _check_text(value)
        elif isinstance(value, dict):
            found.elements += len(value)
            if not schema:
                found.objects.append(value)
                found.media += media_of(value)
        elif isinstance(value, list):
            if key in TOKEN_IDS and is_token_ids(value):
                found.token_ids += len(value)
                _check_ids(value, key)
            else:
                found.elements += len(value)
    found.text -= sum(len(one.holder[one.key]) for one in found.media)
    _check_size(found, settings)
    return found


def _walk(body: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Every text and every value below ``body``: the key that leads to it, itself, whether it is part of a schema."""
    stack: list[tuple[str, Any, bool]] = [("", body, False)]
    while stack:
        key, value, schema = stack.pop()
        yield key, value, schema
        if isinstance(value, dict):
            called = value.get("type") == "tool_use"
            for name, below in value.items():
                yield "", name, True
                inner = schema or (value is body and name in SCHEMAS) or (called and name == "input")
                stack.append((name, below, inner))
        elif isinstance(value, list) and not (key in TOKEN_IDS and is_token_ids(value)):
            stack.extend((key, below, schema) for below in value)


def is_token_ids(value: list[Any]) -> bool:
    """Whether it is a list of whole numbers alone."""
    return len(value) > 0 and all(type(one) is int for one in value)


def media_of(part: dict[str, Any]) -> list[Medium]:
    """The pictures and videos that an object names, in the forms of OpenAI and Anthropic. Raises ApiError 400."""
    found = []
    for key in ("image_url", "video_url"):
        if (value := part.get(key)) is None:
            continue
        holder, name = (value, "url") if isinstance(value, dict) else (part, key)
        url = holder.get(name)
        if not isinstance(url, str) and not (url is None and holder is value):
            raise _no_url(key)
        if url is not None:
            found.append(Medium(url, holder, name, video=key == "video_url"))
    if part.get("type") == "image" and "source" in part:
        found.append(_source(part["source"]))
    return found


def _source(source: Any) -> Medium:
    """Anthropic's form, of which vLLM makes a URL."""
    kind = source.get("type") if isinstance(source, dict) else None
    if kind == "url" and isinstance(source.get("url"), str):
        return Medium(source["url"], source, "url")
    typed = source.get("media_type") if kind == "base64" else None
    if isinstance(typed, str) and _TYPED.fullmatch(typed) and isinstance(source.get("data"), str):
        return Medium(f"data:{typed};base64,{source['data']}", source, "data")
    raise _no_url("source")


def _no_url(key: str) -> ApiError:
    return ApiError(400, f"{key} must be a URL, or an object with one", param=key, code="invalid_image_url")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, "the request holds half of a character (a lone surrogate)", code="invalid_json") from error


def _check_ids(value: list[int], key: str) -> None:
    if min(value) < 0:
        raise ApiError(400, "a token id is not below 0", param=key, code="invalid_token_id")


def _check_size(found: Content, settings: GuardSettings) -> None:
    for what, has, most, variable in (
        ("elements", found.elements, settings.elements, "CARDSTOCK_MAX_ELEMENTS"),
        ("token ids", found.token_ids, settings.token_ids, "CARDSTOCK_MAX_TOKEN_IDS"),
        ("characters of text", found.text, settings.text, "CARDSTOCK_MAX_TEXT_MB"),
    ):
        if has > most:
            message = f"the request has {has} {what}; {most} are taken ({variable})"
            raise ApiError(413, message, code="request_too_large")
