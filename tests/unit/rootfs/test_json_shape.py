"""How many elements a JSON text has and how deep it is, without parsing it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import json_shape  # type: ignore[import-not-found,unused-ignore]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{},:\n\x00é'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a"\\[]{},'), inner),
    max_leaves=30,
)


def count(value: Any) -> int:
    """Commas and brackets that a text of ``value`` has: an empty list has one element, itself."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(count(one) for one in value)
    return 0


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES)
def test_shape_is_that_of_the_parsed_text(value: Any) -> None:
    shape = json_shape.measure(json.dumps(value, ensure_ascii=False).encode(), 10**6, 10**3)
    assert (shape.elements, shape.depth) == (count(value), depth(value))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"messages":[' + b"[]," * 5000 + b"[]]}", "elements"),
        (b"[" * 65, "deeper"),
        (b"[" * 64 + b"]" * 64, ""),
        (b'"' + b"[,{" * 5000 + b'"', ""),
        (b'"\\"' + b"[,{" * 5000 + b'"', ""),
        (b'{"a": "' + b"x" * 10**6 + b'"}', ""),
        (b"", ""),
    ],
)
def test_too_large_says_which_limit(text: bytes, says: str) -> None:
    told = json_shape.too_large(text, 1000, 64)
    assert (says in told) if says else told == ""


@pytest.mark.parametrize("hostile", [b'"\\' * 200_000, b'\\"' * 200_000, b'"' * 400_001, b'"' + b"\\\\" * 200_000])
def test_hostile_quotes_are_read_once(hostile: bytes) -> None:
    """A quadratic reading of these would take minutes; the test would not end."""
    shape = json_shape.measure(b"[" + hostile, 10, 10)
    assert shape.depth == 1 or shape.elements > 10


def test_more_strings_than_the_values_could_have_are_too_many_elements() -> None:
    assert "elements" in json_shape.too_large(b"[" + b'""' * 5000, 1000, 64)
    most = json.dumps({f"k{n}": "v" for n in range(1000)}).encode()
    assert json_shape.too_large(most, 1000, 64) == "" and json_shape.too_large(most, 999, 64) != ""
    assert json_shape.too_large(b'"' + b'\\"' * 5000 + b'"', 1000, 64) == "", "quotes inside of a text are text"


def test_strings_that_are_data_urls_are_counted_by_themselves() -> None:
    value = {"data:": "x", "url": "data:image/png;base64,AAAA", "text": 'say "data:x"', "t": "not data:"}
    assert json_shape.measure(json.dumps(value).encode(), 10, 10).data == len("data:") + len(value["url"])
