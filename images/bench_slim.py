"""`invoke bench slim`: seconds and peak memory of slimming a whole environment, and what it comes to.

The environment is a folder of installed wheels, untouched, named by CARDSTOCK_BENCH_SITE (a site-packages taken out
of a stack's venv). It is slimmed in a copy, by a process of its own, so the folder stays as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from images import process
from images.bench import Row, bench
from images.checkout import Checkout
from images.errors import UsageError

VARIABLE = "CARDSTOCK_BENCH_SITE"
ARCH = "7.5"
_CHILD = """
import json, resource, sys, time
from pathlib import Path
from images.device_code.choose import parse_wanted
from images.device_code.slim import slim_folder
begun = time.perf_counter()
report = slim_folder(Path(sys.argv[1]), [parse_wanted(sys.argv[2])])
seconds = time.perf_counter() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
largest = max((one.before for one in report.libraries), default=0)
print(json.dumps({"seconds": seconds, "peak": peak, "largest": largest, "before": report.before,
                  "after": report.after, "count": len(report.libraries), "refused": len(report.refused)}))
"""


def measure(site: Path, root: Path, arch: str = ARCH) -> dict[str, float]:
    """Slim a copy of ``site`` for ``arch``: seconds, bytes of peak memory, of the largest library, before and after."""
    with tempfile.TemporaryDirectory(prefix="bench-slim-") as scratch:
        copy = Path(scratch, "site-packages")
        shutil.copytree(site, copy, symlinks=True)
        command = [sys.executable, "-c", _CHILD, str(copy), arch]
        told: dict[str, float] = json.loads(process.run(command, env={"PYTHONPATH": str(root)}).out)
        return told


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("slim")
    def rows() -> Iterable[Row]:
        named = os.environ.get(VARIABLE, "")
        if not named or not Path(named).is_dir():
            raise UsageError(
                "no environment to slim is named",
                cause=f"{VARIABLE} is {named!r}",
                do="set it to an untouched site-packages of a stack: the bench works on a copy",
            )
        told = measure(Path(named), checkout.root)
        what = f"{told['count']:.0f} libraries for {ARCH}"
        yield Row("slim", f"slim {what}, {told['refused']:.0f} refused", told["seconds"], None, "s")
        twice = 2 * told["largest"] / 1e6  # the peer: a program that reads the largest library and builds the new one
        yield Row("slim", "peak memory, against the largest library twice", told["peak"] / 1e6, twice, "MB")
        yield Row("slim", f"{what}: bytes, against untouched", told["after"] / 1e6, told["before"] / 1e6, "MB")
