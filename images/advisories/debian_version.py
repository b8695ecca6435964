"""Versions of Debian packages in dpkg's order (deb-version(7)), and ranges of them such as ">=1.2-1,<1.2-3"."""

from __future__ import annotations

import operator
import re
from functools import total_ordering
from itertools import zip_longest

_VERSION = re.compile(r"(?:(\d{1,9}):)?([A-Za-z0-9.+~-]{1,200})")
_CONDITION = re.compile(r"(<=|>=|<|>|==)\s*(\S+)")
_PIECES = re.compile(r"([^0-9]*)([0-9]*)")


@total_ordering
class DebianVersion:
    """A version as dpkg compares it. Raises ValueError for text that is none."""

    def __init__(self, text: str) -> None:
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a version of a Debian package")
        upstream, _, revision = match[2].rpartition("-") if "-" in match[2] else (match[2], "", "")
        self._key = (int(match[1] or 0), _pieces(upstream), _pieces(revision))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DebianVersion) and self._compare(other) == 0

    def __lt__(self, other: DebianVersion) -> bool:
        return self._compare(other) < 0

    def __hash__(self) -> int:
        return hash(self._key[0])  # "1.0" and "1.00" are equal

    def _compare(self, other: DebianVersion) -> int:
        if self._key[0] != other._key[0]:
            return -1 if self._key[0] < other._key[0] else 1
        return _compare(self._key[1], other._key[1]) or _compare(self._key[2], other._key[2])


Pieces = list[tuple[str, int]]


def _pieces(text: str) -> Pieces:
    """Pairs of what is no digit, and a number: "1.2~rc1" is ("", 1), (".", 2), ("~rc", 1)."""
    return [(letters, int(digits or 0)) for letters, digits in _PIECES.findall(text) if letters or digits]


def _compare(left: Pieces, right: Pieces) -> int:
    for (a, m), (b, n) in zip_longest(left, right, fillvalue=("", 0)):
        for x, y in zip_longest(a, b, fillvalue=""):
            if (order := _weight(x) - _weight(y)) != 0:
                return order
        if m != n:
            return m - n
    return 0


def _weight(letter: str) -> int:
    """A tilde comes before the end, letters before all else."""
    if letter == "~":
        return -1
    if letter == "":
        return 0
    return ord(letter) if letter.isalpha() else ord(letter) + 256


def parse_debian_range(text: str) -> tuple[tuple[str, DebianVersion], ...]:
    """The conditions of a range, each a sign and a version. Raises ValueError for text that is no range."""
    out = []
    for condition in text.split(","):
        match = _CONDITION.fullmatch(condition.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a range of Debian versions such as '<1.2-3+deb12u1'")
        out.append((match[1], DebianVersion(match[2])))
    return tuple(out)


def in_debian_range(version: str, wanted: str) -> bool:
    """Whether a version is in a range. Raises ValueError as `parse_debian_range` does."""
    mine = DebianVersion(version)
    signs = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
    return all(signs[sign](mine, other) for sign, other in parse_debian_range(wanted))
