"""Compute capabilities: two integers and a suffix, and which code runs on which card."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from images.core import UsageError, closest

# Compute capabilities that exist, 5.0 and up (NVIDIA's table; 10.1 was renamed 11.0 with CUDA 13).
KNOWN_ARCHS = (
    *("5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5"),
    *("8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1"),
)

_DOTTED = re.compile(r"(\d{1,2})\.(\d)([af]?)(\+ptx)?")
_PLAIN = re.compile(r"(?:sm_?|compute_)?(\d{1,2})(\d)([af]?)")


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
    cleaned = text.strip().lower()
    match = _DOTTED.fullmatch(cleaned) or _PLAIN.fullmatch(cleaned)
    if match is None:
        raise UsageError(
            f"{text!r} is not a compute capability",
            cause="expected a form such as 7.5, 75 or sm_75",
            do=f"nearest: {closest(cleaned, KNOWN_ARCHS)}. Known: {', '.join(KNOWN_ARCHS)}",
        )
    ptx = bool(match.groups()[3]) if len(match.groups()) > 3 else False
    arch = Arch(int(match[1]), int(match[2]), match[3], ptx)
    if arch.capability not in KNOWN_ARCHS:
        raise UsageError(
            f"no NVIDIA card has compute capability {arch.capability}",
            cause=f"{text!r} reads as {arch.capability}",
            do=f"nearest: {nearest_arch(arch)}. Known: {', '.join(KNOWN_ARCHS)}",
        )
    return arch


def nearest_arch(arch: Arch) -> str:
    """The known capability closest in number."""
    return min(KNOWN_ARCHS, key=lambda known: (abs(_number(known) - arch.number), known))


def _number(known: str) -> int:
    major, minor = known.split(".")
    return int(major) * 10 + int(minor)


def join_sm(archs: Iterable[Arch]) -> str:
    """The arch list's form in an id: "sm75", "sm80_86_89"; "" for none."""
    numbers = [str(arch.number) for arch in archs]
    return f"sm{'_'.join(numbers)}" if numbers else ""


def covers(code: Iterable[Arch], card: Arch) -> bool:
    """Whether any of ``code`` runs on ``card``."""
    return any(target.runs_on(card) for target in code)
