"""How fast an answer came: its times and tokens, and the line that is shown under it. Pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A rate over less than this many seconds is the network's, not the model's.
_SHORTEST = 0.05


@dataclass
class Stopwatch:
    """Started with the request; told of each piece of the answer, and of the server's own count of tokens.

    Without that count each piece is taken for a token, and "about" stands before the figures.
    """

    clock: Callable[[], float] = time.monotonic
    tokens: int = 0
    _pieces: int = 0
    _began: float = field(init=False)
    _first: float | None = None
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._began = self.clock()

    def piece(self) -> None:
        """A piece of the answer has come."""
        self._last = self.clock()
        self._pieces += 1
        if self._first is None:
            self._first = self._last

    def told(self) -> str:
        """ "0.42 s to the first token, then 38 tokens/s; 120 tokens", as far as it is known; "" before any came."""
        if self._first is None:
            return ""
        about, count = ("", self.tokens) if self.tokens else ("about ", self._pieces)
        out = f"{_short(self._first - self._began)} s to the first token"
        lasted = self._last - self._first
        if count > 1 and lasted >= _SHORTEST:
            out += f", then {about}{_short((count - 1) / lasted)} tokens/s"
        return f"{out}; {about}{count} token{'s' if count != 1 else ''}"


def _short(value: float) -> str:
    """With two digits that count, and no exponent."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
