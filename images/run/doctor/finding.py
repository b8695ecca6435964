"""One line of the doctor's: what was looked at, how it is, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from images.run.doctor.facts import Unknown

CheckState = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and for what is not ok what to do."""

    name: str
    state: CheckState
    what: str
    do: str = ""


def unknown(name: str, state: CheckState, fact: Unknown, do: str) -> Finding:
    """The line of a fact that could not be had; ``do`` where the fact has no advice of its own."""
    return Finding(name, state, f"{fact.what}: {fact.cause}" if fact.cause else fact.what, fact.do or do)
