"""A run on a card that has not begun, and its record."""

from __future__ import annotations

from pathlib import Path

from images.proof.on_card.records.record import GpuRecord
from images.proof.on_card.runs.run import Run


def bare_record() -> GpuRecord:
    """Of an H200 and the packages of no image in particular; no step."""
    return GpuRecord("NVIDIA H200", "9.0", 1, "580", "", "packages", "", "", {}, ())


def bare_run(folder: Path) -> Run:
    """A run in an image, in ``folder``."""
    return Run(bare_record(), folder / "record.json", folder, {"image": None})
