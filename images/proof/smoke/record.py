"""The record of a smoke run: which level of proof an image reached, when, on what, and why not further."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from images.core import UsageError

LevelStatus = Literal["passed", "failed", "not run"]
LevelName = Literal["audit", "kernels", "stack", "canary", "server"]
# In their order. The kernels are level 1b: they belong to what is known of an image without running its server.
LEVELS: Mapping[LevelName, int] = {"audit": 1, "kernels": 1, "stack": 2, "canary": 3, "server": 4}
_REASON_LENGTH = 120
# Facts of level 1b: "Triton's: 15 compiled, 8 without tensor cores"; "attention's machine code: HMMA on 7.5".
KERNELS_TOLD, CODE_TOLD = "kernels told", "machine code told"
STAND_INS_CALLED = "stand-ins called"  # the fact of a level that has counted them: "0 calls of 5 stand-ins"
_SHOWN = ("device", STAND_INS_CALLED, KERNELS_TOLD, CODE_TOLD)


@dataclass(frozen=True)
class LevelResult:
    """One level of proof. ``reason`` is empty when it passed; ``facts`` holds what was measured, as JSON values."""

    number: int
    name: LevelName
    status: LevelStatus
    reason: str = ""
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProofRecord:
    """All levels of one image, lowest first.

    ``image`` is the reference that was asked for and ``image_id`` what it stood for; ``created`` is UTC in ISO form;
    ``card`` and ``driver`` are None without a card. ``input_hash`` is that of the image's inputs, "" where the image or
    an older record does not tell it.
    """

    variant_id: str
    image: str
    image_id: str
    created: str
    card: str | None
    driver: str | None
    engine_version: str
    levels: tuple[LevelResult, ...]
    input_hash: str = ""

    @property
    def ok(self) -> bool:
        """Nothing failed, and something passed: a run of nothing proves nothing."""
        return all(level.status != "failed" for level in self.levels) and self.highest > 0

    @property
    def highest(self) -> int:
        """The highest level passed, 0 for none."""
        return max((level.number for level in self.levels if level.status == "passed"), default=0)

    @property
    def audited(self) -> tuple[str, ...]:
        """The archs that level 1 found covered."""
        return tuple(next((level.facts.get("audited archs", ()) for level in self.levels if level.name == "audit"), ()))

    def evidence(self) -> str:
        """One line for a label, such as "audit: not run: …; stack: passed; canary: passed (cpu); server: passed"."""
        return "; ".join(_phrase(level) for level in self.levels)

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps({**asdict(self), "ok": self.ok, "evidence": self.evidence()}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str, where: str = "") -> ProofRecord:
        """Read it back. Raises UsageError when the text is no record."""
        try:
            data = json.loads(text)
            levels = tuple(LevelResult(**level) for level in data["levels"])
            fields = [name for name in ProofRecord.__dataclass_fields__ if name not in ("levels", "input_hash")]
            known = {name: data[name] for name in fields}
            return ProofRecord(levels=levels, **known, input_hash=str(data.get("input_hash", "")))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UsageError(
                "this is not a smoke record",
                cause=f"{type(error).__name__}: {error}",
                do="remove it, or run the smoke test again",
                where=where,
            ) from error


def _phrase(level: LevelResult) -> str:
    if level.status == "passed":
        shown = (level.facts.get(name) for name in _SHOWN)
        seen = ", ".join(str(fact) for fact in shown if fact)
        return f"{level.name}: passed ({seen})" if seen else f"{level.name}: passed"
    reason = " ".join(level.reason.split())
    if len(reason) > _REASON_LENGTH:
        reason = reason[: _REASON_LENGTH - 1] + "…"
    return f"{level.name}: {level.status}" + (f": {reason}" if reason else "")
