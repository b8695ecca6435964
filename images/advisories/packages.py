"""What images carry: the Python packages of each lock, and the Debian packages that an image was seen to have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from images.advisories.model import Ecosystem
from images.core import UsageError, read_json
from images.matrix import Variant
from images.render import normalize_name, read_lock

DEBIAN_FILE = "records/packages/debian.json"

# Run inside an image (python -c): dpkg's own list with the source package that each comes from, which is what Debian's
# security tracker goes by.
READ_DEBIAN_PACKAGES = """
import json
from pathlib import Path
found, fields = [], {}
for line in [*Path("/var/lib/dpkg/status").read_text(errors="replace").splitlines(), ""]:
    if not line and "Package" in fields and "Version" in fields:
        source, _, rest = fields.get("Source", fields["Package"]).partition(" ")
        found.append([fields["Package"], fields["Version"], source, rest.strip("()") or fields["Version"]])
    if not line:
        fields = {}
    elif not line.startswith(" ") and ":" in line:
        name, _, value = line.partition(":")
        fields[name] = value.strip()
print(json.dumps(sorted(found)))
"""


@dataclass(frozen=True)
class Carried:
    """The packages of an image: name -> version. Debian's by the name and the version of their source package.

    ``whole``: whether that is all of the Python packages; of a stack without a lock the pins alone are known.
    """

    python: Mapping[str, str]
    debian: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True

    def of(self, ecosystem: Ecosystem) -> Mapping[str, str]:
        """Those of one ecosystem."""
        return self.python if ecosystem == "pypi" else self.debian


def carried_packages(variant: Variant, lock: Mapping[str, str] | None, debian: Mapping[str, str]) -> Carried:
    """What a variant carries, by its lock (None: it has none) and the pins of the matrix.

    Packages that the matrix leaves out are not in it. NVIDIA's are, also those that have stand-ins: which of them go
    whole is known when the image is built, and one hole too many is told rather than one too few.
    """
    pins = {normalize_name(name): pin.version for name, pin in variant.pins}
    versions = dict(lock or {})
    # A lock may have an address where the matrix says which version that is.
    versions |= {name: version for name, version in pins.items() if "://" in versions.get(name, "://")}
    for name in (name for row in variant.unused_packages for name in row.packages):
        versions.pop(name, None)
    return Carried(versions, debian, lock is not None)


def lock_packages(folder: Path, name: str) -> dict[str, str] | None:
    """The packages of a lock that reach an image, each with its version; None where there is no whole lock."""
    lock = read_lock(folder, name)
    return None if lock is None else lock.versions()


def read_debian(root: Path) -> dict[str, str]:
    """Source package -> version of the recorded image; empty where none was recorded. Raises UsageError."""
    path = root / DEBIAN_FILE
    if not path.is_file():
        return {}
    try:
        return {str(row[2]): str(row[3]) for row in read_json(path)["packages"]}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(
            f"{DEBIAN_FILE} is not a list of packages",
            cause=f"{type(error).__name__}: {error}",
            do="./inv advisories --record-debian IMAGE writes it anew",
            where=DEBIAN_FILE,
        ) from error


def debian_record(output: str, image: str, day: str) -> str:
    """The file that keeps what `READ_DEBIAN_PACKAGES` printed in an image. Raises UsageError for other output."""
    try:
        rows = [[str(cell) for cell in row] for row in json.loads(output.strip().splitlines()[-1])]
    except (ValueError, IndexError, TypeError) as error:
        raise UsageError(f"{image} does not tell which Debian packages it has", cause=output[-200:]) from error
    if not rows or any(len(row) != 4 for row in rows):
        raise UsageError(f"{image} does not tell which Debian packages it has", cause=output[-200:])
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    head = json.dumps({"schema": 1, "image": image, "recorded": day})[1:-1]
    columns = json.dumps(["package", "version", "source", "source version"])
    return f'{{\n {head},\n "columns": {columns},\n "packages": [\n{lines}\n ]\n}}\n'
