"""Reading advisories.yaml, as matrix.yaml is read: every error names file, line, key and the nearest valid value."""

from __future__ import annotations

from pathlib import Path

from images.advisories.model import LONGEST_DEFERRAL, Advisories
from images.core import UsageError, closest, parse_model, read_text

FILE = "advisories.yaml"
SCHEMA_FILE = "images/advisories/advisories.schema.json"
_LONGEST = 4 << 20  # characters


def read_advisories(path: Path) -> Advisories:
    """Read and check a file of advisories. Raises UsageError."""
    return parse_advisories(read_text(path), path.name)


def parse_advisories(text: str, name: str = FILE) -> Advisories:
    """The same from text; ``name`` stands in the errors."""
    if len(text) > _LONGEST:
        raise UsageError(f"{name} is longer than {_LONGEST} characters", where=name)
    known = parse_model(text, name, Advisories)
    _check_references(known)
    return known


def _check_references(known: Advisories) -> None:
    """Each name stands for one advisory, each protection that closes one is described, evidence is whole."""
    seen: dict[str, str] = {}
    for index, advisory in enumerate(known.advisories):
        at = ("advisories", index)
        for name in sorted(advisory.names):
            if name in seen:
                raise UsageError(
                    f"{known._path}: two advisories of one name: {name}",
                    cause=f"{seen[name]} has it too",
                    do="put the names of one hole into one entry, the others as its aliases",
                    where=known.where(*at),
                )
            seen[name] = advisory.id
        if advisory.deferred and (advisory.deferred.until - known.read).days > LONGEST_DEFERRAL:
            raise UsageError(
                f"{known._path}: {advisory.id} is deferred until {advisory.deferred.until}",
                cause=f"that is more than {LONGEST_DEFERRAL} days after {known.read}, the day of the list",
                do="name an earlier day, or judge it",
                where=known.where(*at, "deferred", "until"),
            )
        for number, closing in enumerate(advisory.closed_by):
            for wanted in closing.by:
                if wanted not in known.protections:
                    raise UsageError(
                        f"{known._path}: {advisory.id}: there is no protection {wanted!r}",
                        do=f"nearest: {closest(wanted, known.protections)}. Known: {', '.join(known.protections)}",
                        where=known.where(*at, "closed_by", number, "by"),
                    )
    for name, protection in known.protections.items():
        if protection.contains and not protection.file:
            raise UsageError(
                f"{known._path}: protections.{name}: `contains` without a `file`",
                do="name the file below dockerfiles/rootfs that has this text",
                where=known.where("protections", name),
            )
