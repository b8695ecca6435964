"""The base score of a CVSS 3 vector, and the word for a score (FIRST's specification of CVSS 3.1, 7.1 and 5)."""

from __future__ import annotations

import math
import re

from images.advisories.model import Severity

_VECTOR = re.compile(r"CVSS:3\.[01]((?:/[A-Z]{1,3}:[A-Z])+)")
_WEIGHTS = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
# By whether the scope stays as it is.
_PRIVILEGES = {True: {"N": 0.85, "L": 0.62, "H": 0.27}, False: {"N": 0.85, "L": 0.68, "H": 0.5}}


def base_score(vector: str) -> float | None:
    """Such as 9.8; None for a vector of another version, or one that is not whole."""
    match = _VECTOR.match(vector)
    if match is None:
        return None
    letters = dict(part.split(":") for part in match[1].strip("/").split("/"))
    same_scope = letters.get("S") == "U"
    try:
        weight = {name: weights[letters[name]] for name, weights in _WEIGHTS.items()}
        privileges = _PRIVILEGES[same_scope][letters["PR"]]
    except KeyError:
        return None
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 6.42 * lost if same_scope else 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15
    if impact <= 0:
        return 0.0
    ease = 8.22 * weight["AV"] * weight["AC"] * privileges * weight["UI"]
    return _rounded_up(min((impact + ease) * (1.0 if same_scope else 1.08), 10.0))


def _rounded_up(value: float) -> float:
    """To one digit, never down; by integers, as the specification has it, for 4.02 is not 4.0000001."""
    whole = round(value * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10


def severity_of(score: float) -> Severity:
    """The specification's words; what scores 0 is low."""
    for word, least in (("critical", 9.0), ("high", 7.0), ("medium", 4.0)):
        if score >= least:
            return word  # type: ignore[return-value]
    return "low"
