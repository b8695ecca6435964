"""What slimming did, as values and as lines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from images.device_code.names import shown


@dataclass(frozen=True)
class LibraryReport:
    """One library: sizes in bytes, its device code as "sm_75" and "compute_90", before and after.

    ``emptied`` counts containers that held nothing for any wanted card and kept their smallest entry.
    """

    path: str
    before: int
    after: int
    archs_before: tuple[str, ...]
    archs_after: tuple[str, ...]
    emptied: int = 0

    @property
    def changed(self) -> bool:
        """Whether the file is another than before. Slimming never leaves the size as it was without dropping code."""
        return self.archs_before != self.archs_after or self.before != self.after


@dataclass(frozen=True)
class Left:
    """A library that was left as it was, and why; ``offset`` is the byte that was not understood, if one was not."""

    path: str
    reason: str
    offset: int | None = None


@dataclass(frozen=True)
class FolderReport:
    """What became of a folder: libraries slimmed or already slim, those left on purpose, those refused.

    ``removed`` are files of nothing but code for other cards, with their sizes; ``mended`` are those whose row in
    RECORD was another than the file, as a run that was killed leaves it; ``swept`` is what such a run was writing.
    """

    archs: tuple[str, ...]
    libraries: tuple[LibraryReport, ...]
    left: tuple[Left, ...]
    refused: tuple[Left, ...]
    removed: tuple[tuple[str, int], ...] = ()
    mended: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()

    @property
    def before(self) -> int:
        """Bytes of all files that were looked into."""
        return sum(library.before for library in self.libraries) + sum(size for _, size in self.removed)

    @property
    def after(self) -> int:
        """Bytes of the same libraries now."""
        return sum(library.after for library in self.libraries)

    def as_json(self) -> dict[str, object]:
        """The report as plain values."""
        return {
            "archs": list(self.archs),
            "before": self.before,
            "after": self.after,
            "libraries": [vars(library) for library in self.libraries],
            "left": [vars(one) for one in self.left],
            "refused": [vars(one) for one in self.refused],
            "removed": [{"path": path, "bytes": size} for path, size in self.removed],
            "mended": list(self.mended),
            "swept": list(self.swept),
        }


def print_report(report: FolderReport, root: Path) -> None:
    """A line for each library, one for the files that went, and the sum."""
    for library in report.libraries:
        name = shown(os.path.relpath(library.path, root))
        note = (
            f", {library.emptied} containers without code for these cards" if library.emptied and report.archs else ""
        )
        print(
            f"{name}: {library.before / 1e6:.1f} -> {library.after / 1e6:.1f} MB, "
            f"{' '.join(library.archs_before)} -> {' '.join(library.archs_after) or 'none'}{note}"
        )
    kinds: dict[str, list[int]] = {}
    for path, size in report.removed:
        folder, name = os.path.split(os.path.relpath(path, root))
        pattern = f"*.{name.rpartition('.')[2]}" if "." in name else name
        kinds.setdefault(os.path.join(folder, pattern), []).append(size)  # noqa: PTH118 - both are relative
    for pattern, sizes in kinds.items():
        files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
        of = "other cards" if report.archs else "cards"
        print(f"{shown(pattern)}: {files} of {of} removed, {sum(sizes) / 1e6:.1f} MB")
    for path in report.mended:
        print(f"RECORD was wrong and is right now: {shown(os.path.relpath(path, root))}")
    if report.swept:
        print(f"{len(report.swept)} parts that a killed run left are gone")
    print(
        f"{len(report.libraries)} libraries for {' '.join(report.archs) or 'no card'}: "
        f"{report.before / 1e6:.1f} -> {report.after / 1e6:.1f} MB; {len(report.left)} of NVIDIA's left as they are"
    )
