"""Measurements: what they find is kept in `records`, and BENCH.md is written from that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from bench.command import bench as bench
    from bench.command import pages as pages
else:
    __getattr__ = face(__name__, __file__)
