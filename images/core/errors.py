"""Errors as part of the product: what happened, why, what to do, where to look."""

from __future__ import annotations


class CardstockError(Exception):
    """A failure as a person reads it: one fact on each line. Each kind of error has an exit code of its own.

    ``what`` happened; the likely ``cause``; what to ``do``; ``where`` to look (file:line, a log, a source).
    """

    exit_code = 1

    def __init__(self, what: str, *, cause: str = "", do: str = "", where: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.do = do
        self.where = where

    def __str__(self) -> str:
        lines = [self.what]
        for label, text in (("cause", self.cause), ("do", self.do), ("where", self.where)):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)


class CheckFailed(CardstockError):
    """A check failed: smoke, audit, render --check, a build that broke."""

    exit_code = 1


class UsageError(CardstockError):
    """Bad arguments or a bad matrix.yaml."""

    exit_code = 2


class NothingSelected(CardstockError):
    """The selectors are well formed but choose nothing."""

    exit_code = 3


class NoImageFits(CardstockError):
    """No image can serve this card: the rule that says so is in ``cause``."""

    exit_code = 4


class EngineUnreachable(CardstockError):
    """No Docker engine answers and none could be started."""

    exit_code = 5


class RegistryFailure(CardstockError):
    """A registry or package index did not deliver what it was asked for."""

    exit_code = 6


class Unsafe(CardstockError):
    """Refused because it would not be safe: a digest that differs, an unlocked stack on publish."""

    exit_code = 7
