"""Parameters of a request that cost more than an answer may: media of other kinds, templates, stops, schemas. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import json_shape  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from guard_settings import GuardSettings  # type: ignore[import-not-found,unused-ignore]

from .content import Content

VIDEO = frozenset({"video_url", "input_video"})
AUDIO = frozenset({"audio_url", "input_audio"})
# Tensors as somebody else has made them: the last two are of vLLM's own /inference/v1/generate.
EMBEDS = frozenset(
    {"prompt_embeds", "image_embeds", "audio_embeds", "video_embeds", "kwargs_data", "mm_metadata"}
)  # fmt: skip
KWARGS = frozenset({"mm_processor_kwargs", "media_io_kwargs"})
STOPS = frozenset({"stop", "stop_sequences", "bad_words"})
ANSWERS = frozenset({"n", "best_of"})
# What describes the form of an answer, and is made into an automaton before the first token.
STRUCTURED = frozenset(
    {"response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
     "guided_whitespace_pattern", "text", "output_format", "output_config"}
)  # fmt: skip
ALTERNATIVES = ("anyOf", "oneOf", "allOf")
LISTS = frozenset({"enum", "choice", "guided_choice", *ALTERNATIVES})
DEFINITION = re.compile(r"#/(\$defs|definitions)/[^/~%]+")
RULES = frozenset(
    {"regex", "guided_regex", "grammar", "guided_grammar", "pattern", "patternProperties", "whitespace_pattern",
     "guided_whitespace_pattern"}
)  # fmt: skip


def check(body: dict[str, Any], content: Content, settings: GuardSettings) -> None:
    """Raises ApiError 400 and 413, with the limit and how it is opened."""
    for value in content.objects:
        _check_closed(value, settings)
        _check_stops(value, settings)
    _check_structured(body, settings)
    for value in content.objects:  # vLLM's own endpoint for tokens has them in an object of their own
        if value is not body and STRUCTURED & value.keys() - {"text"}:
            _check_structured(value, settings)


def _check_closed(value: dict[str, Any], settings: GuardSettings) -> None:
    names = {key for key, below in value.items() if below is not None}
    kind = value.get("type")
    names |= {kind} if isinstance(kind, str) else set()
    for closed, opened, what, how in (
        (VIDEO, settings.video, "videos", "CARDSTOCK_VIDEO=1, ./inv serve --video 1"),
        (AUDIO, False, "sounds", "no variable: the model takes none"),
        (EMBEDS, settings.embeds, "embeddings", "CARDSTOCK_EMBEDS=1"),
        ({"chat_template"}, settings.chat_template, "templates of a conversation", "CARDSTOCK_CHAT_TEMPLATE=1"),
        (KWARGS, settings.processor_kwargs, "settings of the processor", "CARDSTOCK_PROCESSOR_KWARGS=1"),
    ):
        if not opened and (found := names & closed):
            name = sorted(found)[0]
            raise ApiError(400, f"this server takes no {what} ({how})", param=name, code="not_allowed")


def _check_stops(value: dict[str, Any], settings: GuardSettings) -> None:
    for name in STOPS & value.keys():
        texts = value[name] if isinstance(value[name], list) else [value[name]]
        if len(texts) > settings.stops:
            raise _too_many(name, len(texts), settings.stops, "CARDSTOCK_MAX_STOPS")
        longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
        if longest > settings.stop_length:
            raise _too_many(f"characters of {name}", longest, settings.stop_length, "CARDSTOCK_MAX_STOP_LENGTH")
    for name in ANSWERS & value.keys():
        if isinstance(value[name], int) and value[name] > settings.answers:
            raise _too_many(name, value[name], settings.answers, "CARDSTOCK_MAX_ANSWERS")
    bias = value.get("logit_bias")
    if isinstance(bias, dict) and not all(key.isascii() and key.isdigit() for key in bias):
        raise ApiError(400, "a token id is a number, and not below 0", param="logit_bias", code="invalid_token_id")


def _too_many(what: str, has: int, most: int, variable: str) -> ApiError:
    return ApiError(400, f"{has} {what}; {most} are taken ({variable})", param=what.split()[-1], code="too_many")


def _check_structured(value: dict[str, Any], settings: GuardSettings) -> None:
    names = STRUCTURED & value.keys()
    if value.get("tool_choice") not in (None, "none", "auto"):
        names |= {"tools", "functions"} & value.keys()  # then a tool's schema is the form of the answer
    parts = {name: value[name] for name in names if value[name] is not None}
    if not parts:
        return
    size = len(json.dumps(parts, ensure_ascii=False, check_circular=False))
    if size > settings.schema:
        raise ApiError(
            413,
            f"the form of the answer is described in {size} characters; {settings.schema} are taken "
            "(CARDSTOCK_MAX_SCHEMA_KB)",
            param=min(parts),
            code="schema_too_large",
        )
    nodes = list(_nodes(parts, settings))
    if not settings.rules:
        _check_rules(nodes)
    choices = sum(_choices(nodes))
    if choices > settings.choices:
        raise ApiError(
            413,
            f"the form of the answer has {choices} choices; {settings.choices} are taken (CARDSTOCK_MAX_CHOICES)",
            param=min(parts),
            code="schema_too_large",
        )


def _nodes(parts: dict[str, Any], settings: GuardSettings) -> Iterator[tuple[str, Any]]:
    """Every value below, with the key that it or its list stands under. A text of JSON counts as what it says."""
    stack: list[tuple[str, Any]] = [("", parts)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, str) and key not in RULES and value.lstrip()[:1] == "{":
            value = _inner(value, settings)
        yield key, value
        if isinstance(value, dict):
            stack.extend(value.items())
        elif isinstance(value, list):
            stack.extend((key, below) for below in value)


def _choices(nodes: Sequence[tuple[str, Any]]) -> Iterator[int]:
    """How many there are at each place: entries of lists, alternatives of grammars and regular expressions."""
    for key, value in nodes:
        if isinstance(value, list) and key in LISTS:
            yield len(value)
        elif isinstance(value, str) and key in RULES:
            yield value.count("|")


def _check_rules(nodes: Sequence[tuple[str, Any]]) -> None:
    """Raises ApiError 400 for what some vLLM never finish to compile: rules, definitions that begin with themselves."""
    how = "(CARDSTOCK_RULES=1)"
    begins: dict[str, list[str]] = {}
    for key, value in nodes:
        if key in RULES and value and (isinstance(value, str) or key == "patternProperties"):
            message = f"this server takes no regular expressions and no grammars as the form of an answer {how}"
            raise ApiError(400, message, param=key, code="not_allowed")
        if key == "$ref" and not DEFINITION.fullmatch(str(value)):
            raise ApiError(400, f"a $ref leads to #/$defs/NAME on this server {how}", param=key, code="not_allowed")
        if key in ("$defs", "definitions") and isinstance(value, dict):
            for name, below in value.items():
                begins.setdefault(f"#/{key}/{name}", []).extend(_begins_with(below))
    try:
        TopologicalSorter(begins).prepare()
    except CycleError as error:
        message = f"a definition begins with itself, which this server does not take {how}"
        raise ApiError(400, message, param="$ref", code="not_allowed") from error


def _begins_with(schema: Any) -> Iterator[str]:
    """The definitions that a schema may come to before the first character of an answer."""
    stack = [schema]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            if "$ref" in one:
                yield str(one["$ref"])
            stack.extend(one.get(key) for key in ALTERNATIVES)
        elif isinstance(one, list):
            stack.extend(one)


def _inner(text: str, settings: GuardSettings) -> Any:
    """A schema that is a text of JSON. Raises ApiError 413; what is no JSON is vLLM's to refuse."""
    raw = text.encode("utf-8", "replace")
    if too_large := json_shape.too_large(raw, settings.elements, settings.depth):
        raise ApiError(413, f"{too_large} (CARDSTOCK_MAX_ELEMENTS, CARDSTOCK_MAX_DEPTH)", code="schema_too_large")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
