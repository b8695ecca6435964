"""Compute capabilities: two integers and a suffix, and which code runs on which card."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from images.core import UsageError
from images.device_code.capability import KNOWN as KNOWN_ARCHS
from images.device_code.capability import CapabilityError, nearest, read_capability

__all__ = ["KNOWN_ARCHS", "Arch", "covers", "join_sm", "nearest_arch", "parse_arch"]


@dataclass(frozen=True, order=True)
class Arch:
    """A compute capability such as 7.5, 9.0a or 8.0+PTX.

    ``suffix`` is "", "a" (this exact capability only) or "f" (its family only). ``ptx`` says that the code is PTX
    as well as SASS.
    """

    major: int
    minor: int
    suffix: str = ""
    ptx: bool = False

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.suffix}{'+PTX' if self.ptx else ''}"

    @property
    def number(self) -> int:
        """The compiler's number: 75 for 7.5, 120 for 12.0."""
        return self.major * 10 + self.minor

    @property
    def capability(self) -> str:
        """Without suffix or PTX: "9.0" for 9.0a."""
        return f"{self.major}.{self.minor}"

    def runs_on(self, card: Arch) -> bool:
        """Whether this code runs on ``card`` by the driver's rule (CUDA compatibility guide).

        SASS of X.Y runs on X.Z with Z >= Y, same X; an `a` target on that capability alone; an `f` target within its
        major from its minor up; PTX on any capability at or above its own.
        """
        same = (self.major, self.minor) == (card.major, card.minor)
        if self.suffix == "a":
            return same
        if self.major == card.major and self.minor <= card.minor:
            return True
        return self.ptx and self.suffix == "" and (self.major, self.minor) <= (card.major, card.minor)


def parse_arch(text: str) -> Arch:
    """Read "7.5", "75", "sm_75", "sm75", "9.0a" or "8.0+PTX".

    Raises UsageError for what is not a compute capability, and for one that no card has, with the nearest that exists.
    """
    try:
        typed = read_capability(text)
    except CapabilityError as error:
        known = f"nearest: {error.nearest}. Known: {', '.join(KNOWN_ARCHS)}"
        raise UsageError(error.what, cause=error.cause, do=known) from error
    return Arch(typed.major, typed.minor, typed.suffix, typed.ptx)


def nearest_arch(arch: Arch) -> str:
    """The known capability closest in number."""
    return nearest(arch.number)


def join_sm(archs: Iterable[Arch]) -> str:
    """The arch list's form in an id: "sm75", "sm80_86_89"; "" for none."""
    numbers = [str(arch.number) for arch in archs]
    return f"sm{'_'.join(numbers)}" if numbers else ""


def covers(code: Iterable[Arch], card: Arch) -> bool:
    """Whether any of ``code`` runs on ``card``."""
    return any(target.runs_on(card) for target in code)
