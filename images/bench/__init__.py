"""Measurements: what they find is kept in `records`, and BENCH.md is written from that."""

from images.bench.frame import Row, bench, median_seconds, medians

__all__ = ["Row", "bench", "median_seconds", "medians"]
