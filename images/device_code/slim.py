"""Slimming: leave in each library only the device code that the driver would take for the cards that are wanted.

Call it as ``python -m images.device_code.slim FOLDER --arch 7.5 [--arch 8.6] [--json]``. It needs Python 3.11 and
nothing else. Exit codes: 0 done, 1 a library was refused and left as it was, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from images.device_code.choose import PTX, Entry, Wanted, parse_wanted
from images.device_code.elf import FatbinError, find_sections, is_elf
from images.device_code.layout import DEVICE_SECTIONS, Data, SlimRefused
from images.device_code.record import Owner, owners, update_record
from images.device_code.rewrite import Plan, make_plan
from images.device_code.write import mapped, write_over

__all__ = ["FolderReport", "Left", "LibraryReport", "SlimRefused", "slim_command", "slim_folder", "slim_library"]

NVIDIA_LICENCE = (
    "NVIDIA's own libraries (cuBLAS, cuDNN, cuSPARSE and the like) come under the CUDA Toolkit and cuDNN licence "
    "agreements, which let you pass them on unmodified only: what you slim this way is for your own machine and must "
    "not be published. cuBLAS also wants every earlier minor of the same major."
)
_NVIDIA_FILES = ("libcu*", "libnv*", "libnccl*", "libnpp*")


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
    """What became of a folder: libraries slimmed or already slim, those left on purpose, those refused."""

    archs: tuple[str, ...]
    libraries: tuple[LibraryReport, ...]
    left: tuple[Left, ...]
    refused: tuple[Left, ...]

    @property
    def before(self) -> int:
        """Bytes of all libraries that were looked into."""
        return sum(library.before for library in self.libraries)

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
        }


def slim_library(path: Path, wanted: Sequence[Wanted], *, hollow: bool = False) -> LibraryReport | None:
    """Slim one file for the cards ``wanted``, in place, whole or not at all. None: it holds no device code.

    Raises SlimRefused for a layout that is not known, OSError where the file cannot be read or replaced; then it is
    as it was. A file that needs no change is not written to. Mode, owner and times stay. ``hollow`` leaves nothing in
    a container that holds no code for any wanted card, where else its smallest entry stays.
    """
    if not wanted:
        raise ValueError("no card is named: nothing would be left")
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size < 64 or file.read(4) != b"\x7fELF":
            return None
        with mapped(file.fileno()) as data:
            plan = _plan(data, wanted, hollow)
        if plan is None:
            return None
        if plan.pieces:
            prove = partial(_prove, plan=plan, wanted=wanted, hollow=hollow)
            write_over(path, file.fileno(), plan.pieces, plan.patches, prove)
    after = plan.size if plan.pieces else status.st_size
    return LibraryReport(str(path), status.st_size, after, _names(plan.before), _names(plan.after), plan.emptied)


def _plan(data: Data, wanted: Sequence[Wanted], hollow: bool) -> Plan | None:
    """As `make_plan`; None for a file without device code, which may then be of any layout."""
    try:
        plan = make_plan(data, wanted, hollow=hollow)
    except SlimRefused:
        if not _may_hold_code(data):
            return None
        raise
    return plan if plan.before else None


def _may_hold_code(data: Data) -> bool:
    """By its section headers, of whatever machine they are; where those make no sense, by the sections' names."""
    try:
        if is_elf(data):
            return bool(find_sections(data, DEVICE_SECTIONS))
    except FatbinError:
        pass
    return any(data.find(name.encode()) >= 0 for name in DEVICE_SECTIONS)


def _prove(descriptor: int, plan: Plan, wanted: Sequence[Wanted], hollow: bool) -> None:
    """The new file must hold exactly the entries that were to stay, and have nothing left to drop."""
    with mapped(descriptor) as data:
        again = make_plan(data, wanted, hollow=hollow)
    told = [[(entry.kind, entry.arch, entry.size) for entry in entries] for entries in (plan.after, again.before)]
    if again.pieces or told[0] != told[1]:
        raise SlimRefused("the new file does not read as planned")


def _names(entries: Iterable[Entry]) -> tuple[str, ...]:
    found = {(entry.kind == PTX, entry.arch) for entry in entries}
    return tuple(f"{'compute' if ptx else 'sm'}_{arch}" for ptx, arch in sorted(found))


def slim_folder(
    folder: Path, wanted: Sequence[Wanted], *, nvidia_libraries: bool = False, hollow: bool = False
) -> FolderReport:
    """Slim every library below ``folder`` and write its new hash and size into its wheel's RECORD.

    NVIDIA's own libraries are left alone unless ``nvidia_libraries`` (see NVIDIA_LICENCE). A refused library is left
    as it was and the others go on. Raises OSError where a file cannot be read or replaced.
    """
    owned = owners(folder.resolve())
    libraries, left, refused = [], [], []
    for path in elf_files(folder):
        owner = owned.get(path.resolve())
        if is_nvidia(path, owner) and not nvidia_libraries:
            left.append(Left(str(path), "NVIDIA's own: may be passed on unmodified only"))
            continue
        try:
            report = slim_library(path, wanted, hollow=hollow)
        except SlimRefused as error:
            refused.append(Left(str(path), error.reason, error.offset))
            continue
        if report is None:
            continue
        if report.changed and owner is not None:
            update_record(owner, path)
        libraries.append(report)
    return FolderReport(tuple(str(card) for card in wanted), tuple(libraries), tuple(left), tuple(refused))


def elf_files(folder: Path) -> Iterator[Path]:
    """Regular ELF files below ``folder``, in order; links lead to a file that is met on its own."""
    for root, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            path = Path(root, name)
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def is_nvidia(path: Path, owner: Owner | None) -> bool:
    """By a folder of that name in the environment, its wheel, or its name: any of them is enough.

    Triton brings compilers and profilers of NVIDIA's below ``triton/backends/nvidia``.
    """
    parts = path.resolve().parts
    site = next((place for place, name in enumerate(parts) if name in ("site-packages", "dist-packages")), len(parts))
    within = "nvidia" in parts[site:-1]
    owns = owner is not None and (owner.name == "nvidia" or owner.name.startswith("nvidia-"))
    return within or owns or is_nvidia_name(path.name)


def is_nvidia_name(name: str) -> bool:
    """Whether a file's name is that of a library of NVIDIA's, as other wheels bring them along too."""
    return any(fnmatch(name, pattern) for pattern in _NVIDIA_FILES)


def slim_command(
    folder: str,
    archs: Sequence[str],
    *,
    as_json: bool = False,
    nvidia_libraries: bool = False,
    hollow: bool = False,
) -> int:
    """`invoke slim FOLDER --arch 7.5`: print what was done, return the exit code. Raises ValueError on bad words."""
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{folder} is not a folder")
    wanted = sorted({parse_wanted(text) for text in archs})
    if not wanted:
        raise ValueError("no card is named: give --arch, such as --arch 7.5")
    if nvidia_libraries:
        print(NVIDIA_LICENCE, file=sys.stderr)
    report = slim_folder(root, wanted, nvidia_libraries=nvidia_libraries, hollow=hollow)
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        _print(report, root)
    for one in report.refused:
        print(f"refused, left as it was: {one.path}: {one.reason} (at byte {one.offset:#x})", file=sys.stderr)
    return 1 if report.refused else 0


def _print(report: FolderReport, root: Path) -> None:
    for library in report.libraries:
        name = os.path.relpath(library.path, root)
        note = f", {library.emptied} containers without code for these cards" if library.emptied else ""
        print(
            f"{name}: {library.before / 1e6:.1f} -> {library.after / 1e6:.1f} MB, "
            f"{' '.join(library.archs_before)} -> {' '.join(library.archs_after)}{note}"
        )
    print(
        f"{len(report.libraries)} libraries for {' '.join(report.archs)}: "
        f"{report.before / 1e6:.1f} -> {report.after / 1e6:.1f} MB; {len(report.left)} of NVIDIA's left as they are"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line, for a builder stage that has no invoke."""
    parser = argparse.ArgumentParser(prog="python -m images.device_code.slim", description=__doc__)
    parser.add_argument("folder", help="a site-packages, or any folder with libraries")
    parser.add_argument("--arch", action="append", required=True, help="a card's capability, such as 7.5; repeat")
    parser.add_argument("--json", action="store_true", help="the report as JSON, on stdout alone")
    parser.add_argument("--nvidia-libraries", action="store_true", help=f"slim these too. {NVIDIA_LICENCE}")
    parser.add_argument(
        "--hollow",
        action="store_true",
        help="leave nothing in a container that holds no code for these cards (seen to load and to fail as before with "
        "driver 580 on an H100; other drivers were not tried)",
    )
    words = parser.parse_args(arguments)
    asked = {"as_json": words.json, "nvidia_libraries": words.nvidia_libraries, "hollow": words.hollow}
    try:
        return slim_command(words.folder, words.arch, **asked)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
