"""`invoke bench audit`: the reader against cuobjdump, and the audit of all libraries of an installation.

The libraries are those of the folder named by $CARDSTOCK_BENCH_SITE: the site-packages of an unpacked image or of a
virtual environment with torch in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from images import process
from images.audit_target import CARDS, audit_path
from images.bench import Row, bench, medians
from images.device_code import audit as auditing
from images.device_code.fatbin import read
from images.errors import UsageError

VARIABLE = "CARDSTOCK_BENCH_SITE"
LARGEST = "torch/lib/libtorch_cuda.so"
_ORACLE = "nvidia-cuda-cuobjdump"
_LIMIT = 1.0  # seconds for a whole image: the peer of that row


def cuobjdump() -> Path | None:
    """NVIDIA's cuobjdump from its Python package, which needs no GPU; None where it is not installed."""
    try:
        files = metadata.files(_ORACLE) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == "cuobjdump")
    return next((path for path in found if path.is_file()), None)


def _site() -> Path:
    named = os.environ.get(VARIABLE)
    if not named or not (Path(named) / LARGEST).is_file():
        raise UsageError(
            f"bench audit needs real libraries: {named or 'no folder is named'}",
            do=f"set {VARIABLE} to a site-packages folder that has {LARGEST}",
        )
    return Path(named)


def _whole(site: Path) -> None:
    auditing.to_json(audit_path(site), CARDS)


def register() -> None:
    """Make the bench known."""

    @bench("audit")
    def rows() -> Iterable[Row]:
        site = _site()
        largest = site / LARGEST
        actions: dict[str, Callable[[], object]] = {"ours": lambda: read(largest), "whole": lambda: _whole(site)}
        program = cuobjdump()
        if program is None:
            raise UsageError(f"bench audit needs {_ORACLE}", do=f"pip install {_ORACLE}")
        told = [str(program), "--list-elf", "--list-ptx", str(largest)]
        actions["peer"] = lambda: process.run(told, timeout=300)
        taken = medians(actions, repeats=3)
        size = largest.stat().st_size / 1e6
        entries = len(read(largest).entries)
        name = f"{entries} entries of {LARGEST} ({size:.0f} MB), peer cuobjdump"
        yield Row("audit", name, taken["ours"], taken["peer"], "s")
        found = audit_path(site)
        name = f"all libraries of an installation ({len(found.libraries)} with device code, {found.others} without)"
        yield Row("audit", f"{name}, {len(CARDS)} cards, peer: the limit", taken["whole"], _LIMIT, "s")
