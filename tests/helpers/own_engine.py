"""What an engine of a test's own is started from."""

from __future__ import annotations

import os
import shutil

from images.core.home import Layout, default_layout
from images.docker.embedded.packages import installed


def take_programs(layout: Layout) -> None:
    """Give it the embedded engine's programs, linked, if that engine is there; else it installs its own."""
    there = default_layout()
    if installed(there):
        shutil.copytree(there.prefix, layout.prefix, symlinks=True, copy_function=_link)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
