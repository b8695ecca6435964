"""How many elements a JSON text has and how deep it is nested, counted before anything parses it.

A parser turns each element into an object of fifty bytes and more, so a text of 10 MB can take gigabytes and half a
minute. Counting reads the text a few times, in C. No regular expression does it: one match a string takes seconds where
there are millions, and Python 3.11.2 gets some possessive ones wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True)
class Shape:
    """``elements``: commas and opening brackets outside of strings, so never fewer than the values of all lists and
    objects after their first; ``depth`` of the nesting, counted to one above the limit that was asked for; ``data``:
    bytes of strings that are data: URLs.
    """

    elements: int
    depth: int
    data: int = 0


def measure(text: bytes | bytearray, max_elements: int, max_depth: int) -> Shape:
    """The shape of a JSON text, which need not be a right one. Looks at no more than ``max_elements`` brackets."""
    # Pairs first: what is left of a backslash before a quote is one that escapes it.
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in text else text
    quotes = bare.count(b'"')
    if quotes > 4 * max_elements + 2:  # an object has two strings for each of its elements, and nothing has more
        return Shape(max(max_elements + 1, quotes // 4), 0)
    parts = bare.split(b'"')
    data = sum(len(part) for part in parts[1::2] if part.startswith(b"data:"))
    outside = b"".join(parts[::2])
    del bare, parts
    elements = outside.count(b",") + outside.count(b"[") + outside.count(b"{")
    if elements > max_elements:
        return Shape(elements, 0, data)
    depth = deepest = 0
    for bracket in outside.translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > max_depth:
            break
    return Shape(elements, deepest, data)


def too_large(text: bytes | bytearray, max_elements: int, max_depth: int) -> str:
    """Why a JSON text is not parsed, as a sentence for whoever sent it; empty where it may be."""
    # Taking strings out keeps every other thread waiting, and 64 MB of empty strings take 10 s. A right text has no
    # more than two strings to an element; a quote after a backslash is part of one.
    if text.count(b'"') - text.count(b'\\"') > 4 * (max_elements + 1):
        return f"the request has more strings than {max_elements} elements have"
    return fault(measure(text, max_elements, max_depth), max_elements, max_depth)


def fault(shape: Shape, max_elements: int, max_depth: int) -> str:
    """The same, of a text that was measured."""
    if shape.elements > max_elements:
        return f"the request has {shape.elements} elements; {max_elements} are taken"
    if shape.depth > max_depth:
        return f"the request is nested deeper than {max_depth}"
    return ""
