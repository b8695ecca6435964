"""A loop over nothing asserts nothing: tests loop over ``nonempty`` of what they make or find."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def nonempty(items: Iterable[Item]) -> list[Item]:
    """The items as a list; AssertionError if there are none. tests/unit/test_tests.py demands it of loops."""
    found = list(items)
    if not found:
        raise AssertionError("nothing to check: the collection is empty")
    return found
