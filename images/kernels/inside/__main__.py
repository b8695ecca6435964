"""`python -m images.kernels.inside PACKAGE VERSION --cuda 12.4 --archs "7.5" [--env NAME=VALUE]...`

In the builder's stage (dockerfiles/templates/kernel.j2) nothing more is to be said: the places are the stage's.
Natively, on a machine with nvcc and torch: `--work DIR --out DIR --cache DIR`, `--sdist FILE` where no index can be
reached, and `--seconds N` to stop after a while, with exit code 75; the same command goes on from there.

Exit codes: 0 done; 1 failed, and there is no wheel; 2 refused before anything started; 75 stopped, to go on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from images.kernels.inside.build import build
from images.kernels.inside.failure import REFUSED, STOPPED, Failure, say
from images.kernels.inside.order import Order


def parse(words: Sequence[str], jobs: str) -> Order:
    """The order that a command line gives; ``jobs`` is the value of CARDSTOCK_KERNEL_JOBS. Raises Failure."""
    parser = argparse.ArgumentParser(prog="python -m images.kernels.inside", description="compile one kernel wheel")
    parser.add_argument("package")
    parser.add_argument("version")
    parser.add_argument("--cuda", required=True, help='such as "12.4"')
    parser.add_argument("--archs", required=True, help='such as "7.0 7.5": what the wheel must hold')
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--work", type=Path, default=Path("/tmp/cardstock-kernel"))  # noqa: S108  a layer that is dropped
    parser.add_argument("--out", type=Path, default=Path("/out"))
    parser.add_argument("--cache", type=Path, default=Path("/var/cache/cardstock-kernels"))
    parser.add_argument("--programs", type=Path, default=Path("/run/build/sccache"))
    parser.add_argument("--secrets", type=Path, default=Path("/run/secrets"))
    parser.add_argument("--lock", type=Path, default=Path("/run/build/lock.txt"))
    parser.add_argument("--sdist", type=Path)
    parser.add_argument("--seconds", type=float)
    given = vars(parser.parse_args(words))
    pairs = [pair.partition("=") for pair in given.pop("env")]
    if bad := [name for name, equals, _ in pairs if not (name and equals)]:
        raise Failure(f"--env takes NAME=VALUE, not {bad[0]!r}", REFUSED)
    if jobs and not (jobs.isdigit() and int(jobs) > 0):
        raise Failure(f"CARDSTOCK_KERNEL_JOBS is a number from 1 up, not {jobs!r}", REFUSED)
    return Order(
        env={name: value for name, _, value in pairs},
        archs=tuple(given.pop("archs").split()),
        jobs=int(jobs) if jobs else None,
        **given,
    )


def main(words: Sequence[str]) -> int:
    """Build, and say how it went."""
    try:
        wheel = build(parse(words, os.environ.get("CARDSTOCK_KERNEL_JOBS", "")))
    except Failure as failure:
        say(f"{'error: ' if failure.code != STOPPED else ''}{failure}")
        return failure.code
    say(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, checked")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
