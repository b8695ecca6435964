"""How people write several cards down: "2 x A", "A x2", "A and B", "A, B". Pure text; names are matched elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

from images.core import UsageError

# As nvidia-smi has them: -L "GPU 0: NAME (UUID: GPU-…)", and "NAME, 24576 MiB" of --query-gpu=name,memory.total.
_LISTED = re.compile(r"^GPU \d+: (.*?)(?: \(UUID: [^)]*\))?$")
_MEBIBYTES = re.compile(r",?\s*\b(\d{4,6})\s*MiB\b", re.IGNORECASE)
# More cards than any machine has; a greater number is a slip of the keyboard.
MOST_CARDS = 1024
_WORDS = {
    word: count
    for count, words in enumerate(("one single", "two dual", "three triple", "four quad"), 1)
    for word in words.split()
}
_WORDS |= {"five": 5, "six": 6, "seven": 7, "eight": 8, "a pair of": 2, "pair of": 2}
# "+me" is part of a MIG profile's name, and "GTX+" of a card's.
_BETWEEN = re.compile(r"\s*(?:[,;&]|\b(?:and|plus)\b|\s\+\s|(?<=\w)\+(?!me\b|gfx\b)(?=\w))\s*", re.IGNORECASE)
_TIMES = "[x×*卡张]"  # noqa: RUF001  (the signs themselves are what people type)
# A count before the name: "2 x A", "2xA", "2* A", "2 A"; "40 GB A100" is a size.
_BEFORE = re.compile(
    rf"(\d+)\s*{_TIMES}\s*(?!\d+$)(\S.*)|(\d{{1,2}})\s+(?!gi?b?\b|{_TIMES}\s*\d|{_TIMES}$)(\S.*)", re.IGNORECASE
)
_BEFORE_NUMBER = re.compile(rf"(\d{{1,2}})\s*{_TIMES}\s*(\d{{4}})", re.IGNORECASE)
_BEFORE_WORD = re.compile(rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})\s+(\S.*)", re.IGNORECASE)
# And after it: "A x2", "Ax2", "A x 2", "A (x2)", "A (2)". In "GTX 980" and "TX2" the x is part of a word.
_AFTER = re.compile(
    rf"(.*\S)\s*(?:(?:(?<![a-z])|(?<=\dg)|(?<=\dgb)|(?![a-z])){_TIMES}\s?(\d+)|\(\s*{_TIMES}?\s*(\d+)\s*{_TIMES}?\s*\))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Written:
    """One name as it was written, and how many cards of it; ``counted``: whether a number was said at all."""

    name: str
    count: int = 1
    counted: bool = False


def read_written(text: str, known: frozenset[str] = frozenset()) -> tuple[Written, ...]:
    """The names of a text, in their order, each with its count. ``known`` are names in lower case that are whole.

    Raises UsageError for a count that cannot be.
    """
    text = _MEBIBYTES.sub(lambda match: f" {round(int(match[1]) / 1024)} GB", _LISTED.sub(r"\1", text.strip()))
    if _plain(text) in known:
        return (Written(text),)
    return tuple(_one(part.strip(), known) for part in _BETWEEN.split(text))


def _one(text: str, known: frozenset[str]) -> Written:
    if _plain(text) in known:
        return Written(text)
    if match := _BEFORE_NUMBER.fullmatch(text) or _BEFORE.fullmatch(text):
        count, name = (part for part in match.groups() if part is not None)
        return _counted(name, count, text)
    if match := _BEFORE_WORD.fullmatch(text):
        return Written(match[2], _WORDS[" ".join(match[1].lower().split())], counted=True)
    if match := _AFTER.fullmatch(text):
        return _counted(match[1], match[2] or match[3], text)
    return Written(text)


def _counted(name: str, count: str, text: str) -> Written:
    if len(count) > 4 or not 1 <= int(count) <= MOST_CARDS:
        raise UsageError(
            f"{text[:80]!r} is no number of cards", cause=f"a machine has 1 to {MOST_CARDS}", do="--card '2 x NAME'"
        )
    return Written(name.strip(), int(count), counted=True)


def counted_name(name: str, count: int) -> str:
    """ "2 x NAME", as it is read here; NAME alone for one."""
    return name if count == 1 else f"{count} x {name}"


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
