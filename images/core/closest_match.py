"""The nearest valid value, for error messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_NUMBERS = re.compile(r"\d+(\.\d+)*")


def closest(text: str, among: Iterable[str]) -> str:
    """The candidate closest to ``text``: by value where all are dotted numbers, else by spelling; "" of none."""
    candidates = list(among)
    if not candidates:
        return ""
    if _NUMBERS.fullmatch(text) and all(_NUMBERS.fullmatch(candidate) for candidate in candidates):
        return min(candidates, key=lambda candidate: (abs(_value(candidate) - _value(text)), _value(candidate)))
    return max(candidates, key=lambda candidate: difflib.SequenceMatcher(None, text, candidate).ratio())


def _value(text: str) -> float:
    return sum(int(part) * 0.01**place for place, part in enumerate(text.split(".")))
