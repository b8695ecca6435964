"""Slimming: leave in each library only the device code that the driver would take for the cards that are wanted.

Call it as ``python -m images.device_code.slim FOLDER --arch 7.5 [--arch 8.6] [--json]``, or with ``--no-card`` where
no card is used and no device code is to stay. It needs Python 3.11 and nothing else. Exit codes: 0 done, 1 a library
was refused and left as it was, 2 usage.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from images.device_code.bare_files import bare_files, read_bare_file, regular_files, remove, runs_any
from images.device_code.choose import PTX, Entry, Wanted, parse_wanted
from images.device_code.elf import FatbinError, find_sections, is_elf
from images.device_code.folder_lock import FolderBusy, locked, sweep
from images.device_code.layout import DEVICE_SECTIONS, EHDR_SIZE, Data, SlimRefused, check_whole
from images.device_code.names import shown
from images.device_code.record import Owner, RecordError, file_hash, mend_record, owners, records, update_record
from images.device_code.rewrite import Plan, make_plan
from images.device_code.slim_report import FolderReport, Left, LibraryReport, print_report
from images.device_code.write import mapped, write_over

__all__ = ["FolderReport", "Left", "LibraryReport", "SlimRefused", "slim_command", "slim_folder", "slim_library"]

NVIDIA_LICENCE = (
    "NVIDIA's own libraries (cuBLAS, cuDNN, cuSPARSE and the like) come under the CUDA Toolkit and cuDNN licence "
    "agreements, which let you pass them on unmodified only: what you slim this way is for your own machine and must "
    "not be published. cuBLAS also wants every earlier minor of the same major."
)
# After these nothing more can be written: the run ends, and what it did is whole.
ENDING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_NVIDIA_FILES = ("libcu*", "libnv*", "libnccl*", "libnpp*")


def slim_library(
    path: Path, wanted: Sequence[Wanted], *, hollow: bool = False, owner: Owner | None = None
) -> LibraryReport | None:
    """Slim one file for the cards ``wanted``, in place, whole or not at all. None: it holds no device code.

    Raises SlimRefused for a layout that is not known, OSError where the file cannot be read or replaced; then it is
    as it was. A file that needs no change is not written to. Mode, owner, extended attributes and times stay.
    ``hollow`` leaves nothing in a container that holds no code for any wanted card, where else its smallest entry
    stays; with it ``wanted`` may be empty, and all device code goes. The row of ``owner`` is changed with the file.
    """
    _check_wanted(wanted, hollow)
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(5)
        if not stat.S_ISREG(status.st_mode) or head[:4] != b"\x7fELF":
            return None
        if status.st_size < EHDR_SIZE:
            if head[4:] != b"\x02":
                return None
            raise SlimRefused(f"it is cut short: its {status.st_size} bytes hold no header")
        with mapped(file.fileno()) as data:
            plan = _plan(data, wanted, hollow)
        if plan is None:
            return None
        if plan.pieces:
            prove = partial(_prove, plan=plan, wanted=wanted, hollow=hollow)
            write_over(path, file.fileno(), plan.pieces, plan.patches, prove, owner)
    after = plan.size if plan.pieces else status.st_size
    return LibraryReport(str(path), status.st_size, after, _names(plan.before), _names(plan.after), plan.emptied)


def _check_wanted(wanted: Sequence[Wanted], hollow: bool) -> None:
    if not wanted and not hollow:
        raise ValueError("no card is named: nothing would be left")


def _plan(data: Data, wanted: Sequence[Wanted], hollow: bool) -> Plan | None:
    """As `make_plan`; None for a file without device code, which may then be of any layout."""
    try:
        plan = make_plan(data, wanted, hollow=hollow)
    except SlimRefused:
        check_whole(data)
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
    folder: Path,
    wanted: Sequence[Wanted],
    *,
    nvidia_libraries: bool = False,
    hollow: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> FolderReport:
    """Slim every library below ``folder`` and write its new hash and size into its wheel's RECORD.

    Files of nothing but device code (cubins and the like) that none of the cards runs are removed, with their rows.
    ``hollow`` as in `slim_library`: with it and no card, no device code is left.
    NVIDIA's own are left alone unless ``nvidia_libraries`` (see NVIDIA_LICENCE). A refused library, and one that this
    user may not read or replace, is left as it was and the others go on. What a killed run left is repaired. ``tell``
    is given a line when another run must be waited for. Raises FolderBusy, RecordError, and OSError where nothing more
    can be written.
    """
    _check_wanted(wanted, hollow)
    with locked(folder, tell):
        return _Work(folder, wanted, nvidia_libraries, hollow).run()


class _Work:
    """One run over a folder, which is locked."""

    def __init__(self, folder: Path, wanted: Sequence[Wanted], nvidia_libraries: bool, hollow: bool) -> None:
        self._folder, self._wanted = folder, wanted
        self._nvidia_libraries, self._hollow = nvidia_libraries, hollow
        self._libraries: list[LibraryReport] = []
        self._left: list[Left] = []
        self._refused: list[Left] = []
        self._mended: list[str] = []
        self._removed: list[tuple[Path, int]] = []
        self._linked: dict[tuple[int, int], Path] = {}  # a file with several names -> the name that was slimmed

    def run(self) -> FolderReport:
        resolved = self._folder.resolve()
        swept = [path for place in _places(resolved) for path in sweep(place)]
        owned = owners(resolved)
        for path in elf_files(self._folder, self._unreadable):
            self._try(path, owned.get(path.resolve()))
        for path in bare_files(self._folder):
            self._try(path, owned.get(path.resolve()))
        remove([path for path, _ in self._removed], owned)
        return FolderReport(
            tuple(str(card) for card in self._wanted),
            tuple(self._libraries),
            tuple(self._left),
            tuple(self._refused),
            tuple((str(path), size) for path, size in self._removed),
            tuple(self._mended),
            tuple(map(str, swept)),
        )

    def _unreadable(self, error: OSError) -> None:
        self._refused.append(Left(str(error.filename), f"cannot be read: {error.strerror}"))

    def _try(self, path: Path, owner: Owner | None) -> None:
        try:
            self._one(path, owner)
        except SlimRefused as error:
            self._refused.append(Left(str(path), error.reason, error.offset))
        except FatbinError as error:
            self._refused.append(Left(str(path), error.what, error.offset))
        except OSError as error:
            if error.errno in ENDING:
                raise
            self._refused.append(Left(str(path), f"cannot be read or replaced: {error.strerror}"))

    def _one(self, path: Path, owner: Owner | None) -> None:
        if is_nvidia(path, owner) and not self._nvidia_libraries:
            self._left.append(Left(str(path), "NVIDIA's own: may be passed on unmodified only"))
            if owner is not None and owner.size and owner.size != str(path.stat().st_size):
                self._mend(owner, path)
            return
        bare = read_bare_file(path)
        if bare is not None:
            if any(runs_any(bare, card.number) for card in self._wanted):
                return
            self._removed.append((path, path.lstat().st_size))
            return
        if self._is_other_name(path, owner):
            return
        before = path.stat()
        report = slim_library(path, self._wanted, hollow=self._hollow, owner=owner)
        if report is None:
            return
        if before.st_nlink > 1 and report.changed:
            self._linked[before.st_dev, before.st_ino] = path
        if not report.changed and owner is not None:
            self._mend(owner, path)
        self._libraries.append(report)

    def _is_other_name(self, path: Path, owner: Owner | None) -> bool:
        """Another name of a file that was slimmed under its first: it becomes a name of the new file."""
        status = path.stat()
        first = self._linked.get((status.st_dev, status.st_ino))
        if first is None:
            return False
        part = path.with_name(f".cardstock-link_{os.getpid()}.part")
        part.hardlink_to(first)
        if owner is not None:
            update_record(owner, file_hash(first), first.stat().st_size)
        os.replace(part, path)
        return True

    def _mend(self, owner: Owner, path: Path) -> None:
        if mend_record(owner, path):
            self._mended.append(str(path))


def _places(folder: Path) -> list[Path]:
    """The folder, and outside of it those of the RECORDs that it has files of."""
    around = {record.parent for record in records(folder)}
    return [folder, *sorted(place for place in around if folder not in place.parents)]


def elf_files(folder: Path, unreadable: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Regular ELF files below ``folder``, in order; links lead to a file that is met on its own.

    ``unreadable`` is given the error of each folder and file that cannot be read; without it that is raised.
    """
    for path in regular_files(folder, unreadable):
        try:
            with path.open("rb") as file:
                head = file.read(4)
        except OSError as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        if head == b"\x7fELF":
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
    no_card: bool = False,
) -> int:
    """`invoke slim FOLDER --arch 7.5`: print what was done, return the exit code. Raises ValueError on bad words.

    ``no_card`` instead of ``archs``: all device code goes.
    """
    root = Path(folder)
    if not folder.strip() or not root.is_dir():
        raise ValueError(f"{shown(folder) or 'nothing'} is not a folder")
    words = [word for text in archs for word in text.replace(",", " ").replace(";", " ").split() or [text]]
    wanted = sorted({parse_wanted(text) for text in words})
    if wanted and no_card:
        raise ValueError(f"a card is named ({wanted[0]}), and no card is to be used: give --arch or --no-card")
    if not wanted and not no_card:
        raise ValueError("no card is named: give --arch, such as --arch 7.5, or --no-card where none is used")
    if nvidia_libraries:
        print(NVIDIA_LICENCE, file=sys.stderr)
    report = slim_folder(root, wanted, nvidia_libraries=nvidia_libraries, hollow=hollow or no_card, tell=_tell)
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        print_report(report, root)
    for one in report.refused:
        where = "" if one.offset is None else f" (at byte {one.offset:#x})"
        print(f"refused, left as it was: {shown(one.path)}: {shown(one.reason)}{where}", file=sys.stderr)
    return 1 if report.refused else 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line, for a builder stage that has no invoke."""
    parser = argparse.ArgumentParser(prog="python -m images.device_code.slim", description=__doc__)
    parser.add_argument("folder", help="a site-packages, or any folder with libraries")
    parser.add_argument("--arch", action="append", default=[], help="a card's capability, such as 7.5; repeat")
    parser.add_argument("--no-card", action="store_true", help="no card is used: all device code goes")
    parser.add_argument("--json", action="store_true", help="the report as JSON, on stdout alone")
    parser.add_argument("--nvidia-libraries", action="store_true", help=f"slim these too. {NVIDIA_LICENCE}")
    parser.add_argument(
        "--hollow",
        action="store_true",
        help="leave nothing in a container that holds no code for these cards (seen to load and to fail as before with "
        "driver 580 on an H100; other drivers were not tried)",
    )
    words = parser.parse_args(arguments)
    asked = {
        "as_json": words.json,
        "nvidia_libraries": words.nvidia_libraries,
        "hollow": words.hollow,
        "no_card": words.no_card,
    }
    try:
        return slim_command(words.folder, words.arch, **asked)
    except ValueError as error:
        parser.error(str(error))
    except (FolderBusy, RecordError, OSError) as error:
        print(f"slim: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
