"""Faults that pass are tried again: as often as is sensible, as late as the registry asks, within bounds.

A loop rather than tenacity: the wait comes from the fault itself, each wait is told, and the last fault ends in the
caller's own error. That is three callbacks around the same ten lines, and one package more to lock.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

ATTEMPTS = 6
TOO_MANY = 429
_PASSING = (408, 425, TOO_MANY)  # HTTP statuses that may be over in a moment, as all of 500 and above but these:
_LASTING = (501, 505, 507, 508, 511)  # not implemented, no such version, full, a loop, a network that wants a login
_SHORTEST_WAIT = 0.5
_LONGEST_WAIT = 120.0
LONGEST_ASKED = 900.0  # seconds; who asks for a longer wait is not waited for
Result = TypeVar("Result")


class TransientError(Exception):
    """A fault that may be over in a moment; ``wait`` is what was asked for, in seconds, ``status`` HTTP's, if any."""

    def __init__(self, what: str, wait: float | None = None, status: int | None = None) -> None:
        super().__init__(what)
        self.wait, self.status = wait, status

    @property
    def asks_too_long(self) -> bool:
        """Whether it asks for a longer wait than anybody sits through."""
        return self.wait is not None and self.wait > LONGEST_ASKED


def may_pass(status: int) -> bool:
    """Whether an HTTP status tells of a fault that may be over in a moment."""
    return status in _PASSING or (500 <= status < 600 and status not in _LASTING)


@dataclass(frozen=True)
class Retry:
    """How faults that pass are met: ``say`` gets a line before each wait, ``sleep`` waits."""

    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = lambda _: None

    def run(self, once: Callable[[], Result]) -> Result:
        """What ``once`` gives, called up to ATTEMPTS times.

        Raises the last TransientError, and at once one that asks for too long a wait, and all else.
        """
        for attempt in range(1, ATTEMPTS):
            try:
                return once()
            except TransientError as fault:
                if fault.asks_too_long:
                    raise
                seconds = _seconds(fault, attempt)
                self.say(f"{fault}; again in {seconds:g} s")
            self.sleep(seconds)
        return once()


def _seconds(fault: TransientError, attempt: int) -> float:
    wanted = _SHORTEST_WAIT * 2 ** (attempt - 1) if fault.wait is None else fault.wait
    return min(_LONGEST_WAIT, max(_SHORTEST_WAIT, wanted))


def retry_after(text: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for, given as a number or as a date; None without a sensible one."""
    if not text:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, until - (time.time() if now is None else now))
