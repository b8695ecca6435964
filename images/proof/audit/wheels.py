"""One audited wheel as a small file: its name, digest, and what each container of device code in it holds."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from images.core import CheckFailed, UsageError, sha256_of
from images.device_code.audit import Audit, Audited
from images.device_code.fatbin import PTX, SASS, Container, Entry, Library, Section

FOLDER = "records/wheels"

# "8.0", "9.0a", or "ptx8.0@8.4": PTX for 8.0 in version 8.4 of its language.
_TOKEN = re.compile(r"(ptx)?(\d+)\.(\d)([af]?)(?:@(\d+)\.(\d+))?")


@dataclass(frozen=True)
class Wheel:
    """A wheel that was audited: ``package`` and ``version``, its file's name, sha256 and bytes, and what it holds."""

    package: str
    version: str
    file: str
    sha256: str
    size: int
    audit: Audit

    @property
    def order(self) -> tuple[str, Version]:
        """To sort by: package, then version."""
        return self.package, Version(self.version)

    @property
    def path(self) -> str:
        """Where its record is kept, from the repository's root."""
        return f"{FOLDER}/{self.package}-{self.version}.json"


def make_record(path: Path, audit: Audit) -> Wheel:
    """What is kept of the audit of the wheel at ``path``.

    Raises UsageError for a file that is not named as a wheel is, CheckFailed where a library of it is damaged, or holds
    code that cannot be read.
    """
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise UsageError(
            f"{path} is not named as a wheel is", cause=str(error), do="audit it without --record"
        ) from error
    if damaged := [one.name for one in audit.libraries if one.problem]:
        raise CheckFailed(
            f"{path.name} is not recorded: it holds libraries that cannot be read", cause=", ".join(damaged)
        )
    if unread := [one.name for one in audit.libraries if one.library.unread]:
        raise CheckFailed(
            f"{path.name} is not recorded: it holds code of a form that is not read", cause=", ".join(unread)
        )
    with path.open("rb") as file:
        digest = sha256_of(file)
    return Wheel(name.replace("-", "_"), str(version), path.name, digest, path.stat().st_size, audit)


def to_json(wheel: Wheel) -> str:
    """The text of its record. Of each library only how many containers hold the same set of codes."""
    libraries = {
        one.name: {
            "bytes": one.library.size,
            "containers": dict(sorted(Counter(map(_spell, one.library.loadable)).items())),
        }
        for one in wheel.audit.libraries
    }
    data = {
        "package": wheel.package,
        "version": wheel.version,
        "file": wheel.file,
        "sha256": wheel.sha256,
        "bytes": wheel.size,
        "without_device_code": wheel.audit.others,
        "libraries": libraries,
    }
    return json.dumps(data, indent=1) + "\n"


def from_json(text: str) -> Wheel:
    """Read a record. The containers have their codes again, but no place in a file."""
    data = json.loads(text)
    libraries = []
    for name, recorded in data["libraries"].items():
        containers = tuple(_read(codes) for codes, count in recorded["containers"].items() for _ in range(count))
        section = Section(".nv_fatbin", 0, 0, 0, containers)
        libraries.append(Audited(name, Library(True, recorded["bytes"], (section,))))
    audit = Audit(data["file"], tuple(libraries), data["without_device_code"])
    return Wheel(data["package"], data["version"], data["file"], data["sha256"], data["bytes"], audit)


def read_records(folder: Path) -> tuple[Wheel, ...]:
    """All records of a folder, by package and version."""
    wheels = (from_json(path.read_text(encoding="utf-8")) for path in folder.glob("*.json"))
    return tuple(sorted(wheels, key=lambda wheel: wheel.order))


def _spell(container: Container) -> str:
    """What a container holds, as one line: its codes by kind and number, each once."""
    codes = {(entry.kind == PTX, entry.arch, entry.suffix, entry.version if entry.kind == PTX else (0, 0)): entry
             for entry in container.entries if entry.kind in (SASS, PTX)}  # fmt: skip
    return " ".join(_token(codes[key]) for key in sorted(codes))


def _token(entry: Entry) -> str:
    number = f"{entry.arch // 10}.{entry.arch % 10}{entry.suffix}"
    return number if entry.kind == SASS else f"ptx{number}@{entry.version[0]}.{entry.version[1]}"


def _read(codes: str) -> Container:
    return Container(0, 0, 0, 0, tuple(map(_entry, codes.split())))


def _entry(token: str) -> Entry:
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ValueError(f"{token!r} is no code such as 8.0, 9.0a or ptx8.0@8.4")
    kind = PTX if match[1] else SASS
    version = (int(match[5]), int(match[6])) if match[5] else (0, 0)
    return Entry(kind, int(match[2]) * 10 + int(match[3]), match[4], version, 0, "", 0, 0, 0, 0)
