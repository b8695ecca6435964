"""Compute capabilities as people type them: read here, and nowhere else. Standard library only."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

# A card's compute capability: (major, minor).
Capability = tuple[int, int]

# Those that exist, 5.0 and up (NVIDIA's table).
KNOWN = (
    *("5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5"),
    *("8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1"),
)
# CUDA 13 gave a chip another number.
_RENAMED = {"10.1": "11.0"}

_DOTTED = re.compile(r"([1-9][0-9]?)\.([0-9])([af]?)(\+ptx)?")
_PLAIN = re.compile(r"(?:sm_?|compute_)?([1-9][0-9]?)([0-9])([af]?)(\+ptx)?")
_SHOWN = 40  # letters of what was typed that a message repeats


class CapabilityError(ValueError):
    """A text that names no compute capability: ``what`` is wrong, ``cause``, and the ``nearest`` that exists."""

    def __init__(self, what: str, cause: str, nearest: str) -> None:
        super().__init__(f"{what}: {cause}; nearest: {nearest}. Known: {', '.join(KNOWN)}")
        self.what = what
        self.cause = cause
        self.nearest = nearest


@dataclass(frozen=True, order=True)
class Typed:
    """What was typed: 9 and 0 with the suffix "a" for "sm_90a"; ``ptx`` for "8.0+PTX"."""

    major: int
    minor: int
    suffix: str = ""
    ptx: bool = False

    @property
    def number(self) -> int:
        """The compiler's number: 75 for 7.5, 120 for 12.0."""
        return self.major * 10 + self.minor


def read_capability(text: str) -> Typed:
    """Read "7.5", "75", "sm_75", "compute_75", "9.0a" or "8.0+PTX", in any case.

    Raises CapabilityError for what is no capability, and for one that no card has, with the nearest that exists.
    """
    cleaned = text.strip().lower()
    match = _DOTTED.fullmatch(cleaned) or _PLAIN.fullmatch(cleaned)
    if match is None:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        what = f"{shown!r} is not a compute capability"
        raise CapabilityError(what, "expected a form such as 7.5, 75 or sm_75", _alike(cleaned[:_SHOWN]))
    typed = Typed(int(match[1]), int(match[2]), match[3], match[4] is not None)
    name = f"{typed.major}.{typed.minor}"
    if name not in KNOWN:
        renamed = _RENAMED.get(name)
        cause = f"CUDA 13 calls it {renamed}" if renamed else f"{text.strip()!r} reads as {name}"
        raise CapabilityError(f"no NVIDIA card has compute capability {name}", cause, renamed or nearest(typed.number))
    return typed


def nearest(number: int) -> str:
    """The known capability closest to a compiler's number such as 76; of two the lower."""
    return min(KNOWN, key=lambda known: (abs(_number(known) - number), _number(known)))


def _number(known: str) -> int:
    major, minor = known.split(".")
    return int(major) * 10 + int(minor)


def _alike(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})*", text):
        major, _, minor = text.partition(".")
        return nearest(int(major) * 10 + int((minor or "0").partition(".")[0][0]))
    return max(KNOWN, key=lambda known: difflib.SequenceMatcher(None, text, known).ratio())
