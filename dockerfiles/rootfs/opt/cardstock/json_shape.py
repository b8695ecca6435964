"""How many elements a JSON text has and how deep it is nested, counted before anything parses it.

A parser turns each element into an object of fifty bytes and more, so a text of 10 MB can take gigabytes and half a
minute. Counting reads the text once, in C, and keeps what is outside of its strings: seldom more than a few kilobytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A string, also one that never ends: what matches always moves on, so a hostile text is read once and not once a quote.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True)
class Shape:
    """``elements``: commas and opening brackets outside of strings, so never fewer than the values of all lists and
    objects after their first; ``depth`` of the nesting, counted to one above the limit that was asked for.
    """

    elements: int
    depth: int


def measure(text: bytes, max_elements: int, max_depth: int) -> Shape:
    """The shape of a JSON text, which need not be a right one. Looks at no more than ``max_elements`` brackets."""
    outside = _STRING.sub(b"", text)
    elements = outside.count(b",") + outside.count(b"[") + outside.count(b"{")
    if elements > max_elements:
        return Shape(elements, 0)
    depth = deepest = 0
    for bracket in outside.translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > max_depth:
            break
    return Shape(elements, deepest)


def too_large(text: bytes, max_elements: int, max_depth: int) -> str:
    """Why a JSON text is not parsed, as a sentence for whoever sent it; empty where it may be."""
    shape = measure(text, max_elements, max_depth)
    if shape.elements > max_elements:
        return f"the request has {shape.elements} elements; {max_elements} are taken"
    if shape.depth > max_depth:
        return f"the request is nested deeper than {max_depth}"
    return ""
