"""The table of cards and stacks in docs/compatibility.md, made of the records of audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from images.core import UsageError, write_atomically
from images.matrix import Matrix
from images.proof.audit.notes import notes
from images.proof.audit.table import PARTS, stacks_of, table
from images.proof.audit.wheels import FOLDER, Wheel, make_record, read_records, to_json
from images.render import document

_LEGEND = """\
*native*: machine code for this very card. *as 8.6*: that of a lower minor of its family. *PTX 570*: compiled at first
use by driver 570 or newer. *35/96*: so many of its pieces of code run there, the others are for other cards. *-*:
nothing runs there. All are wheels of the package index; xformers is compiled here for the wanted cards, its rows say
what its own wheel would run."""


def table_text(matrix: Matrix, wheels: Sequence[Wheel]) -> str:
    """What stands between the marks: the table, what its words mean, and what changed between versions."""
    header, rows = table(matrix, wheels)
    lines = [header, ["---"] * len(header), *rows]
    current = [wheel for wheel in wheels if stacks_of(matrix, wheel)]
    note_lines = [f"- {note}" for note in notes(wheels, current)]
    if left := unaudited(matrix, wheels):
        note_lines.append(f"- Not audited, from elsewhere: {', '.join(left)}.")
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", _LEGEND, "", *note_lines])


def unaudited(matrix: Matrix, wheels: Sequence[Wheel]) -> list[str]:
    """Pins with device code that no record is of: "torch 2.5.1+cu121 (cu121)"."""
    packages = {part.package: part.title for part in PARTS}
    known = {(wheel.package, wheel.version) for wheel in wheels}
    left = [
        f"{packages[package]} {pin.version} ({name})"
        for name, stack in matrix.stacks.items()
        for engine in stack.backends.values()
        for package, pin in engine.pins.items()
        if stack.cuda and package in packages and (package, pin.version) not in known
    ]
    return list(dict.fromkeys(left))


def with_cards_table(root: Path, matrix: Matrix, before: Mapping[str, str]) -> dict[str, str]:
    """``before`` (pages by path from the root) with the table of cards, of the records below ``root``."""
    return document.CARDS.fill_in(before, table_text(matrix, read_records(root / FOLDER)))


def record_wheel(root: Path, path: Path) -> Wheel:
    """Audit a wheel and keep its record below ``root``.

    Raises UsageError for what is no wheel, CheckFailed for a damaged library.
    """
    from images.proof.audit.target import audit_path

    if not path.is_file():
        raise UsageError(
            f"there is no wheel {path}", do="only a wheel can be recorded: pip download --no-deps NAME==VERSION"
        )
    wheel = make_record(path, audit_path(path))
    write_atomically(root / wheel.path, to_json(wheel))
    return wheel
