"""The bounds of a record of a run on a card. It comes from other people's machines, and its header is printed in
tables, on terminals and in documents: so a name has no character that means something there. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MOST_BYTES = 4 << 20  # of a record as a file; the largest of today's has 133 kB
DEPTH = 12
VALUES = 50_000
TEXT = 40_000  # characters of one string
STEPS, FIGURES, NOTES, VERSIONS = 200, 2_000, 50, 50

_HASH = r"([0-9a-f]{64})?"
_DIGEST = r"(sha256:[0-9a-f]{64})?"
_TIME = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00))?"
# Field of the header -> what it must match as a whole.
_PATTERNS = {
    "card": r"([A-Za-z0-9][A-Za-z0-9 ._/()+-]{0,79})?",  # none: the run found no card
    "capability": r"(\d{1,2}\.\d)?",
    "driver": r"(\d{2,4}(\.\d{1,4}){0,3})?",
    "created": _TIME,
    "ended": _TIME,
    "variant": r"([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?",
    "input_hash": _HASH,
    "image_digest": _DIGEST,
    "image_id": _DIGEST,
    "engine": r"([A-Za-z0-9][A-Za-z0-9 .:+~_-]{0,59})?",
}
_VERSION = r"[0-9A-Za-z][0-9A-Za-z.+!_-]{0,63}"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def check_bounds(data: Any) -> None:
    """Raise ValueError for a document that is larger, deeper or of other characters than a record may be."""
    _check_size(data)
    if not isinstance(data, Mapping):
        raise ValueError("it is no object")
    for name, pattern in _PATTERNS.items():
        value = data.get(name, "")
        if isinstance(value, str) and (name in data) and not re.fullmatch(pattern, value):
            raise ValueError(f"{name} is {value[:80]!r}, which is none")
    for name, most in (("steps", STEPS), ("figures", FIGURES), ("notes", NOTES), ("versions", VERSIONS)):
        if isinstance(found := data.get(name), list | dict) and len(found) > most:
            raise ValueError(f"{len(found)} {name}, at most {most}")
    versions = data.get("versions")
    for name, version in versions.items() if isinstance(versions, Mapping) else ():
        if not re.fullmatch(_NAME, str(name)) or not re.fullmatch(_VERSION, str(version)):
            raise ValueError(f"versions has {str(name)[:80]!r}: {str(version)[:80]!r}, which is none")


def _check_size(data: Any) -> None:
    """Depth, number of values, length of strings: without recursion, so that depth itself does no harm."""
    count, level = 0, [data]
    for depth in range(DEPTH + 2):
        if not level:
            return
        if depth > DEPTH:
            raise ValueError(f"nested deeper than {DEPTH}")
        below: list[Any] = []
        for one in level:
            count += 1
            if count > VALUES:
                raise ValueError(f"more than {VALUES} values")
            if isinstance(one, str) and len(one) > TEXT:
                raise ValueError(f"a text of {len(one)} characters, at most {TEXT}")
            if isinstance(one, Mapping):
                if any(len(str(key)) > TEXT for key in one):
                    raise ValueError(f"a name of more than {TEXT} characters")
                below += one.values()
            elif isinstance(one, list | tuple):
                below += one
        level = below
