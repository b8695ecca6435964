"""Drivers: what CUDA a driver brings, what code it runs, and the oldest that an image needs. Pure.

Under minor-version compatibility a driver runs machine code of every toolkit of its major version (from 11 on); PTX is
compiled by the driver, which must be as new as the toolkit that made it (CUDA compatibility guide).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from images.core import UsageError
from images.matrix.arch import Arch
from images.matrix.model import Toolkit

# CUDA version that each driver branch reports (CUDA release notes, table 3: the driver each toolkit shipped with).
_BRANCHES = {
    branch: cuda
    for branch, *cuda in (
        *((384, 9, 0), (387, 9, 1), (396, 9, 2), (410, 10, 0), (418, 10, 1), (440, 10, 2), (450, 11, 0), (455, 11, 1)),
        *((460, 11, 2), (465, 11, 3), (470, 11, 4), (495, 11, 5), (510, 11, 6), (515, 11, 7), (520, 11, 8)),
        *((525, 12, 0), (530, 12, 1), (535, 12, 2), (545, 12, 3), (550, 12, 4), (555, 12, 5), (560, 12, 6)),
        *((565, 12, 7), (570, 12, 8), (575, 12, 9), (580, 13, 0), (590, 13, 1)),
    )
}
# The first branch that knows a card: that of the CUDA release that first compiles for it (its release notes).
_FIRST = {
    Arch(*card): branch
    for branch, *cards in (
        *((384, (7, 0)), (410, (7, 5)), (450, (8, 0)), (455, (8, 6)), (520, (8, 9), (9, 0))),
        *((570, (10, 0), (12, 0)), (575, (10, 3), (12, 1))),
    )
    for card in cards
}
# The last branch for Volta and older cards. Unverified: said of R580 when it was announced, not tried.
LAST_FOR_VOLTA = 580


@dataclass(frozen=True, order=True)
class Driver:
    """A Linux driver: 535.104.05 is (535, 104, 5)."""

    parts: tuple[int, ...]

    def __str__(self) -> str:
        branch, *rest = self.parts
        return ".".join([str(branch), *(f"{part:02d}" for part in rest)])

    @property
    def branch(self) -> int:
        """535 for 535.104.05."""
        return self.parts[0]

    @property
    def cuda(self) -> tuple[int, int]:
        """The CUDA version it reports: (12, 2) for branch 535; of an unknown one, that of the known one before."""
        known = [branch for branch in _BRANCHES if branch <= self.branch]
        major, minor = _BRANCHES[max(known)] if known else (0, 0)
        return major, minor


def parse_driver(text: str) -> Driver:
    """Read "535.104.05", "535.104" or "535". Raises UsageError for what is no driver version."""
    if re.fullmatch(r"\d{3}(\.\d{1,3}){0,2}", text.strip()) is None:
        raise UsageError(
            f"{text!r} is not a driver version",
            cause="expected a form such as 535.104.05 or 535",
            do="nvidia-smi --query-gpu=driver_version --format=csv,noheader",
        )
    return Driver(tuple(int(part) for part in text.strip().split(".")))


def newest_of(driver: Driver) -> Driver:
    """The newest driver that a partial version ("535", "535.104") may mean."""
    return Driver((*driver.parts, 999)) if len(driver.parts) < 3 else driver


def oldest_driver(toolkit: Toolkit, *, ptx: bool) -> Driver:
    """The oldest driver for code of a toolkit: its own one where PTX must be compiled, else that of its major."""
    return parse_driver(toolkit.driver if ptx else toolkit.floor)


def has_ptx(archs: Iterable[Arch]) -> bool:
    """Whether an image for these cards has code that comes as PTX only: FlashAttention on Blackwell (audited)."""
    return any(arch.major >= 10 for arch in archs)


@lru_cache(maxsize=4096)
def driver_suffices(driver: Driver, minimum: str | None) -> bool:
    """Whether ``driver`` is new enough for an image that needs ``minimum`` ("525.60.13"; None: no driver)."""
    return minimum is None or newest_of(driver) >= parse_driver(minimum)


def runtime_accepts(driver: Driver, require_cuda: str | None) -> bool:
    """Whether the NVIDIA container runtime starts an image with this NVIDIA_REQUIRE_CUDA ("cuda>=12.0")."""
    if require_cuda is None:
        return True
    match = re.fullmatch(r"cuda>=(\d+)\.(\d+)", require_cuda)
    if match is None:
        raise UsageError(f"{require_cuda!r} is not of the form cuda>=12.0", do="correct NVIDIA_REQUIRE_CUDA")
    return driver.cuda >= (int(match[1]), int(match[2]))


def driver_branches(card: Arch) -> tuple[int, int | None]:
    """The first and the last driver branch that serves a card; None where no branch is known to be the last."""
    older = (card.major, card.minor) < (7, 5)
    return _FIRST.get(card, 0), LAST_FOR_VOLTA if older else None


def driver_supports(driver: Driver, card: Arch) -> bool:
    """Whether a driver is of a branch that serves this card."""
    first, last = driver_branches(card)
    return first <= driver.branch and (last is None or driver.branch <= last)
