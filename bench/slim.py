"""`invoke bench slim`: seconds and peak memory of slimming a whole environment, and what it comes to.

The environment is a folder of installed wheels, untouched: the one that CARDSTOCK_BENCH_SITE names, which stays as it
is, or that of a built image's stack. It is slimmed in a copy, by a process of its own, as the build does it: first what
no loader maps goes, then the code for other cards.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.frame import bench
from bench.record import Row
from bench.stages import untouched_site
from images.core import process
from images.render import Checkout

ARCH = "7.5"
_CHILD = """
import json, resource, sys, time
from pathlib import Path
from images.device_code.choose import parse_wanted
from images.device_code.slim import slim_folder
from images.device_code.strip import strip_folder
begun = time.perf_counter()
stripped, freed = strip_folder(Path(sys.argv[1]))
between = time.perf_counter()
report = slim_folder(Path(sys.argv[1]), [parse_wanted(sys.argv[2])])
ended = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
largest = max((one.before for one in report.libraries), default=0)
print(json.dumps({"seconds": ended - between, "strip": between - begun, "stripped": stripped,
                  "freed": freed, "peak": peak, "largest": largest, "before": report.before,
                  "after": report.after, "count": len(report.libraries), "refused": len(report.refused)}))
"""


def measure(site: Path, root: Path, arch: str = ARCH, *, in_place: bool = False) -> dict[str, float]:
    """Strip and slim a copy of ``site`` for ``arch``, or ``site`` itself: seconds and bytes, as `_CHILD` names them."""
    with tempfile.TemporaryDirectory(prefix="bench-slim-") as scratch:
        folder = site
        if not in_place:
            folder = Path(scratch, "site-packages")
            shutil.copytree(site, folder, symlinks=True)
        command = [sys.executable, "-c", _CHILD, str(folder), arch]
        measured: dict[str, float] = json.loads(process.run(command, env={"PYTHONPATH": str(root)}).out)
        return measured


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("slim", heavy="a built image of a card, unpacked")
    def rows() -> Iterable[Row]:
        with untouched_site(checkout) as (site, ours):
            measured = measure(site, checkout.root, in_place=ours)
        mb = measured["freed"] / 1e6
        yield Row("slim", f"strip {measured['stripped']:.0f} libraries of {mb:.0f} MB", measured["strip"], None, "s")
        what = f"{measured['count']:.0f} libraries for {ARCH}"
        yield Row("slim", f"slim {what}, {measured['refused']:.0f} refused", measured["seconds"], None, "s")
        twice = 2 * measured["largest"] / 1e6  # a program that reads the largest library and builds the new one
        yield Row("slim", "peak memory", measured["peak"] / 1e6, twice, "MB", "the largest library twice")
        yield Row(
            "slim",
            f"{what}: bytes",
            measured["after"] / 1e6,
            measured["before"] / 1e6,
            "MB",
            "untouched",
            headline=True,
        )
