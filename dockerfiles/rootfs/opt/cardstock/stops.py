"""Texts that end an answer, looked for as it grows: each character is looked at once. Standard library only, no I/O."""

from __future__ import annotations

from collections.abc import Sequence


class _Stop:
    """One text (Knuth, Morris and Pratt): ``matched`` of its characters are the end of what was seen."""

    def __init__(self, text: str) -> None:
        self.text, self.matched = text, 0
        self._shorter = [0] * len(text)  # for each prefix: the longest shorter one that is also its end
        length = 0
        for at in range(1, len(text)):
            while length and text[at] != text[length]:
                length = self._shorter[length - 1]
            length += text[at] == text[length]
            self._shorter[at] = length

    def find(self, new: str) -> int:
        """Where in ``new`` the text ends for the first time, as a position behind it; -1: not yet."""
        for at, letter in enumerate(new):
            while self.matched and letter != self.text[self.matched]:
                self.matched = self._shorter[self.matched - 1]
            self.matched += letter == self.text[self.matched]
            if self.matched == len(self.text):
                return at + 1
        return -1


class StopTexts:
    """Lets text through up to the first of the stop texts; what may be the beginning of one waits."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._stops = [_Stop(text) for text in texts]
        self._held = ""

    def push(self, new: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop text came. After that nothing more may be pushed."""
        before, self._held = len(self._held), self._held + new
        cuts = [before + end - len(stop.text) for stop in self._stops if (end := stop.find(new)) >= 0]
        if cuts:
            return self._held[: min(cuts)], True
        keep = max((stop.matched for stop in self._stops), default=0)
        out = self._held[: len(self._held) - keep]
        self._held = self._held[len(out) :]
        return out, False

    def rest(self) -> str:
        """What still waits, when no more text comes."""
        out, self._held = self._held, ""
        return out
