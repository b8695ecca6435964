"""Starts a program inside an image as its entry point would: with the driver's libraries handed on.

    python -m images.proof.on_card.inside.start MODULE [ARGUMENT]…

Standard library only: torch is imported by what is started, when the loader's path is right.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOTFS = Path(__file__).parents[4] / "dockerfiles" / "rootfs" / "opt" / "cardstock"


def main() -> None:
    """Become the program."""
    sys.path.insert(0, str(ROOTFS))
    from driver_library import hand_on  # type: ignore[import-not-found,unused-ignore]

    handed = hand_on(os.environ, Path(tempfile.mkdtemp(prefix="cardstock-driver-")))
    if handed.told:
        print(handed.told, flush=True)
    os.execve(sys.executable, [sys.executable, "-m", *sys.argv[1:]], {**os.environ, **handed.variables})  # noqa: S606


if __name__ == "__main__":
    main()
