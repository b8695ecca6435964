"""`invoke bench preflight`: what asking for the card costs at every start, beside what the server's imports take.

On a machine without a card that is the way to "there is none"; a driver's own start comes on top where there is one. By
default the first built image for a card; $CARDSTOCK_BENCH_ONLY names others by a glob on variant ids.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from bench.frame import bench
from bench.record import Row
from bench.stages import ONLY, Workbench, workbench
from bench.start import import_cost
from images.build import PYTHON_IN_IMAGE
from images.core import NothingSelected
from images.matrix import Variant
from images.render import Checkout

REPEATS = 7
# Inside the container, as the entry point does it; the first run, which reads the files from the disk, does not count.
_TIMED = f"""
import os, subprocess, sys, time
argv = [sys.executable, "-S", "-E", "-B", "/opt/cardstock/preflight.py"]
for _ in range({REPEATS + 1}):
    begin = time.perf_counter()
    subprocess.run(argv, stderr=subprocess.DEVNULL)
    print(time.perf_counter() - begin)
"""


def chosen_variants(tools: Workbench) -> list[Variant]:
    """The built images for cards to measure. Raises NothingSelected where there is none."""
    variants = [variant for variant in tools.built() if variant.archs]
    if not variants:
        raise NothingSelected("preflight is in images for cards, and none is built", do="./inv build --arch 7.5")
    return variants if ONLY in os.environ else variants[:1]


def seconds(tools: Workbench, variant: Variant) -> list[float]:
    """Seconds of preflight in a container of the image without a card, one a repeat."""
    ran = tools.engine.run(tools.image_name(variant), ["-c", _TIMED], entrypoint=[PYTHON_IN_IMAGE])
    return [float(line) for line in ran.out.split()[1:]]


def rows(variant: str, image: str, asked: Sequence[float], imported: float) -> Iterator[Row]:
    """The one row: the median, and ``imported``, processor seconds of the imports."""
    measures = f"{variant}: preflight, without a card"
    yield Row("preflight", measures, median(asked), imported, "s", against="importing the server", image=image)


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("preflight", heavy="a built image for a card, a minute")
    def measure() -> Iterable[Row]:
        tools = workbench(checkout)
        for variant in chosen_variants(tools):
            imported = import_cost(tools.engine, tools.image_name(variant), variant.backend).server
            yield from rows(variant.id, tools.image_label(variant), seconds(tools, variant), imported)
