"""Measurements: what they find is kept in `records`, and BENCH.md is written from that."""

from bench.frame import bench, median_seconds, medians
from bench.record import Row

__all__ = ["Row", "bench", "median_seconds", "medians"]
