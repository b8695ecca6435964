"""`invoke bench audit`: the reader against cuobjdump, and the audit of all libraries of an installation.

The libraries are those of the folder named by $CARDSTOCK_BENCH_SITE, a site-packages with torch in it, or the untouched
ones of a built image's stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from bench.frame import bench, medians
from bench.record import Row
from bench.stages import VARIABLE, untouched_site
from images.core import UsageError, process
from images.device_code import audit as auditing
from images.device_code.fatbin import read
from images.proof.audit import CARDS, audit_path
from images.render import Checkout

LARGEST = "torch/lib/libtorch_cuda.so"
ORACLE = "nvidia-cuda-cuobjdump"
_LIMIT = 1.0  # seconds for a whole image: the peer of that row


def cuobjdump() -> Path | None:
    """NVIDIA's cuobjdump from its Python package, which needs no GPU; None where it is not installed."""
    try:
        files = metadata.files(ORACLE) or []
    except metadata.PackageNotFoundError:
        return None
    programs = (Path(str(file.locate())) for file in files if file.name == "cuobjdump")
    return next((path for path in programs if path.is_file()), None)


def _whole(site: Path) -> None:
    auditing.to_json(audit_path(site), CARDS)


def measure(site: Path) -> Iterator[Row]:
    """Rows for the libraries below ``site``. Raises UsageError where it has no torch, or cuobjdump is missing."""
    largest = site / LARGEST
    if not largest.is_file():
        raise UsageError(f"bench audit needs real libraries: {site} has no {LARGEST}", do=f"correct {VARIABLE}")
    program = cuobjdump()
    if program is None:
        raise UsageError(f"bench audit needs {ORACLE}", do=f"pip install {ORACLE}")
    command = [str(program), "--list-elf", "--list-ptx", str(largest)]
    actions: dict[str, Callable[[], object]] = {
        "ours": lambda: read(largest),
        "whole": lambda: _whole(site),
        "peer": lambda: process.run(command, timeout=300),
    }
    taken = medians(actions, repeats=3)
    size = largest.stat().st_size / 1e6
    name = f"list {len(read(largest).entries)} entries of {LARGEST} ({size:.0f} MB)"
    yield Row("audit", name, taken["ours"], taken["peer"], "s", "cuobjdump", headline=True)
    audit = audit_path(site)
    name = f"all libraries of an installation ({len(audit.libraries)} with device code, {audit.others} without)"
    yield Row("audit", f"{name}, {len(CARDS)} cards", taken["whole"], _LIMIT, "s", "limit")


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("audit", heavy="a built image of a card, unpacked")
    def rows() -> Iterable[Row]:
        with untouched_site(checkout) as (site, _):
            return list(measure(site))
