"""Whether a wheel is what its record says: its digest, its name, and the device code really in it."""

from __future__ import annotations

import re
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from images.core import CheckFailed, Unsafe, sha256_of
from images.kernels.inside.recipes import recipe
from images.kernels.inside.verify import holds
from images.kernels.record import WheelRecord
from images.proof.audit import audit_path
from images.render import normalize_name


def check_digest(path: Path, record: WheelRecord) -> None:
    """Raise Unsafe where the file is not the bytes that the record names."""
    size = path.stat().st_size if path.is_file() else -1
    found = _digest(path) if size == record.size else ""
    if found != record.sha256:
        told = "is not there" if size < 0 else f"has {size} bytes, not {record.size}" if not found else "was changed"
        raise Unsafe(
            f"{path.name} is not the wheel that was built: it {told}",
            cause=f"its record says sha256 {record.sha256}",
            do="remove it; it is then fetched or built again",
            where=str(path),
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_of(file)


def check_wheel(path: Path, record: WheelRecord) -> None:
    """Raise CheckFailed where the wheel's name or device code is not what its record says.

    The audit is done anew here: what a build (or a registry) says of its own work is not taken on trust.
    """
    name, version = _named(path)
    wanted_name = recipe(record.package).wheel
    if (normalize_name(name), version.partition("+")[0]) != (normalize_name(wanted_name), record.version):
        raise CheckFailed(f"{path.name} is {name} {version}, not {wanted_name} {record.version}", where=str(path))
    held = {one.name: sorted(holds(one.library)) for one in audit_path(path).libraries}
    wanted = {library: sorted(archs) for library, archs in record.audit.items()}
    if not held or held != wanted or any(archs != sorted(record.archs) for archs in held.values()):
        raise CheckFailed(
            f"the device code in {path.name} is not for {' '.join(record.archs)} alone",
            cause="; ".join(f"{library} holds {' '.join(archs)}" for library, archs in held.items()) or "it has none",
            do="build it again; if it comes out the same, the build's arch list is not what it seems",
            where=f"./inv audit {path}",
        )


def _named(path: Path) -> tuple[str, str]:
    """Name and version in a wheel's METADATA. Raises CheckFailed for a file that is no wheel."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)]
            headers = HeaderParser().parsestr(archive.read(inside[0]).decode() if inside else "")
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise CheckFailed(f"{path.name} is no wheel", cause=str(error), where=str(path)) from error
    return str(headers.get("Name", "")), str(headers.get("Version", ""))
