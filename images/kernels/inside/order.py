"""What is to be built, and what it took so far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    """What to build, and where. ``work`` is kept: the same order goes on from what lies there.

    ``cache`` is the folder of compiler cache, source distributions and logs; ``programs`` a folder with sccache;
    ``secrets`` a folder with the site's ``ca``, ``pip`` and ``sccache`` files, all optional. ``seconds`` limits a run.
    """

    package: str
    version: str
    cuda: str
    archs: tuple[str, ...]
    env: Mapping[str, str]
    work: Path
    out: Path
    cache: Path
    programs: Path
    secrets: Path
    lock: Path | None = None
    sdist: Path | None = None
    jobs: int | None = None
    seconds: float | None = None

    @property
    def title(self) -> str:
        """The package as people name it."""
        return f"{self.package} {self.version}"


@dataclass
class Spent:
    """What a wheel took so far, in all runs: seconds, processor seconds, compiler runs, the largest one in bytes."""

    seconds: float = 0.0
    cpu: float = 0.0
    compiled: int = 0
    peak: int = 0

    @staticmethod
    def read(work: Path) -> Spent:
        """What earlier runs in this folder spent."""
        try:
            return Spent(**json.loads((work / "spent.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Spent()

    def write(self, work: Path) -> None:
        """Leave it for the next run; on a full disk it is lost."""
        with suppress(OSError):
            (work / "spent.json").write_text(json.dumps(self.__dict__), encoding="utf-8")
