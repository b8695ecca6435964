"""Collects the outcomes of single tests into levels and a record. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from images.core import CardstockError
from images.proof.smoke.record import LEVELS, LevelName, LevelResult, LevelStatus, ProofRecord

NOT_ASKED = "not asked for"
# As pytest calls them.
Outcome = Literal["passed", "failed", "skipped"]
Phase = Literal["collect", "setup", "call", "teardown"]


@dataclass
class _Tally:
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: bool = False
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


def level_of(file_name: str) -> LevelName:
    """The level of a test file: canary for test_3_canary.py. Raises ValueError for a name without one."""
    match = re.fullmatch(r"test_\d[a-z]?_([a-z]+)\.py", file_name)
    for name in LEVELS:
        if match is not None and match[1] == name:
            return name
    raise ValueError(f"{file_name} names no level")


class Collector:
    """Takes the outcome of each test and works out the levels. ``base`` is the record without its levels."""

    def __init__(self) -> None:
        self.base: ProofRecord | None = None
        self._tallies: dict[LevelName, _Tally] = {}

    def add(
        self,
        level: LevelName,
        name: str,
        outcome: Outcome,
        error: BaseException | None,
        seconds: float,
        phase: Phase = "call",
    ) -> None:
        """An outcome (passed, failed, skipped) of a test's phase: setup, call or teardown."""
        tally = self._tally(level)
        tally.seconds += seconds
        if outcome == "failed":
            tally.failed.setdefault(name, _text(error))
            tally.broken = tally.broken or phase == "setup"
        elif outcome == "skipped":
            tally.skipped[name] = _text(error)
        elif phase == "call":
            tally.passed.append(name)

    def failed_below(self, level: LevelName) -> LevelName | None:
        """The lowest failed level below ``level``."""
        order = list(LEVELS)
        below = order[: order.index(level)]
        return next((name for name in below if name in self._tallies and self._tallies[name].failed), None)

    def broken(self, level: LevelName) -> bool:
        """Whether what the level's tests stand on (a container, a server) could not be set up."""
        return self._tally(level).broken

    def facts(self, level: LevelName) -> dict[str, Any]:
        """The level's facts, to be added to."""
        return self._tally(level).facts

    def note_card(self, card: str, driver: str) -> None:
        """Note on what card, and with what driver, this ran."""
        if self.base:
            self.base = replace(self.base, card=card, driver=driver)

    def record(self) -> ProofRecord:
        """The record of all levels; one without a test is "not run". Raises ValueError without a base."""
        if self.base is None:
            raise ValueError("no image was examined")
        levels = [self.level(name) for name in LEVELS]
        return replace(self.base, levels=tuple(levels))

    def level(self, name: LevelName) -> LevelResult:
        """One level: failed if any test failed, passed if any passed, else not run."""
        tally = self._tallies.get(name)
        if tally is None:
            return LevelResult(LEVELS[name], name, "not run", NOT_ASKED)
        status: LevelStatus = "failed" if tally.failed else "passed" if tally.passed else "not run"
        reason = ""
        if status == "failed":
            reason = "; ".join(f"{short(test)}: {_first(text)}" for test, text in tally.failed.items())
        elif status == "not run":
            reason = "; ".join(_unique(tally.skipped.values()))
        facts = {**tally.facts, "checks": len(tally.passed)}
        if tally.failed:
            facts["failures"] = dict(tally.failed)
        if tally.skipped and status != "not run":
            facts["not run"] = dict(tally.skipped)
        return LevelResult(LEVELS[name], name, status, reason, round(tally.seconds, 1), facts)

    def _tally(self, level: LevelName) -> _Tally:
        return self._tallies.setdefault(level, _Tally())


def _text(error: BaseException | None) -> str:
    if error is None:
        return "no reason was told"
    own = isinstance(error, CardstockError) or type(error).__name__ in ("Failed", "Skipped")
    text = str(getattr(error, "msg", "") or error)
    return text if own else f"{type(error).__name__}: {text}"


def _first(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else text


def short(name: str) -> str:
    """A test's name as people read it: "imports" for test_stack[imports], "models" for test_models."""
    parameter = re.search(r"\[(.+)\]$", name)
    return parameter[1] if parameter else name.removeprefix("test_")


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
