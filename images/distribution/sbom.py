"""The bill of materials of an image, CycloneDX 1.6: every Python and Debian package, asked from the image itself."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from images import __version__
from images.core import CheckFailed

if TYPE_CHECKING:
    from images.advisories import Assessment
    from images.docker import Engine

KIND = "application/vnd.cyclonedx+json"
FILE = "sbom.cdx.json"
PYTHON = "/opt/venv/bin/python"
_NAMESPACE = uuid.UUID("5a2bd7a4-5f43-5d7e-9c41-3c9d1f2f7e10")

# Run inside the image: installed distributions by their metadata, Debian packages by dpkg's own list.
READ_PACKAGES = """
import json
from importlib import metadata
from pathlib import Path
python = [[d.metadata["Name"], d.version, d.metadata.get("License-Expression") or ""] for d in metadata.distributions()]
debian, fields = [], {}
places = [Path("/var/lib/dpkg/status"), *sorted(Path("/var/lib/dpkg/status.d").glob("*"))]
for place in places:
    if not place.is_file() or place.name.endswith(".md5sums"):
        continue
    for line in [*place.read_text(errors="replace").splitlines(), ""]:
        if not line and "Package" in fields and "Version" in fields:
            debian.append([fields["Package"], fields["Version"], fields.get("Architecture", "")])
        if not line:
            fields = {}
        elif not line.startswith(" ") and ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
print(json.dumps({"python": sorted(python), "debian": sorted(debian)}))
"""


@dataclass(frozen=True)
class Packages:
    """Python packages as (name, version, SPDX licence or ""), Debian packages as (name, version, architecture)."""

    python: tuple[tuple[str, str, str], ...]
    debian: tuple[tuple[str, str, str], ...]


def read(engine: Engine, reference: str) -> Packages:
    """Ask an image of the engine, without network. Raises CheckFailed where it does not answer sensibly."""
    ran = engine.run(reference, ["-c", READ_PACKAGES], entrypoint=[PYTHON])
    return parse(ran.out)


def parse(output: str) -> Packages:
    """The last line that `READ_PACKAGES` printed."""
    try:
        told: Mapping[str, Sequence[Sequence[str]]] = json.loads(output.strip().splitlines()[-1])
        python, debian = (tuple((str(a), str(b), str(c)) for a, b, c in told[kind]) for kind in ("python", "debian"))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckFailed(
            "the image does not tell what is in it", cause=f"{type(error).__name__}: {error}; it said {output[-200:]!r}"
        ) from error
    return Packages(python, debian)


def make(name: str, digest: str, packages: Packages, created: str, assessment: Assessment | None = None) -> str:
    """The bill as JSON. The same image gives the same text: its serial number is made of the digest, its time is the
    image's (``created``, RFC 3339). With an ``assessment``, its advisories stand in it with their VEX states."""
    from cyclonedx.model.bom import Bom, BomMetaData  # slow to load, and only publishing needs it
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import LicenseExpression
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    from images.distribution import vex

    image = Component(
        name=name,
        version=digest,
        type=ComponentType.CONTAINER,
        bom_ref="image",
        purl=PackageURL("oci", "", name, digest),
    )
    made = Component(name="cardstock", version=__version__, type=ComponentType.APPLICATION, bom_ref="cardstock")
    parts = [
        Component(
            name=package,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"python {package} {version}",
            purl=PackageURL("pypi", "", package.lower().replace("_", "-"), version),
            licenses=[LicenseExpression(licence)] if licence else [],
        )
        for package, version, licence in dict.fromkeys(packages.python)
    ]
    parts += [
        Component(
            name=package,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"debian {package} {version} {arch}",
            purl=PackageURL("deb", "debian", package, version, {"arch": arch}),
        )
        for package, version, arch in dict.fromkeys(packages.debian)
    ]
    bill = Bom(
        components=parts,
        metadata=BomMetaData(component=image, timestamp=_time(created)),
        serial_number=uuid.uuid5(_NAMESPACE, digest),
    )
    bill.metadata.tools.components.add(made)
    if assessment is not None:
        bill.vulnerabilities.update(vex.vulnerabilities(assessment, parts))
    bill.register_dependency(image, parts)
    return JsonV1Dot6(bill).output_as_string(indent=1) + "\n"


def _time(text: str) -> datetime:
    # Docker writes nanoseconds; Python reads microseconds.
    head, point, rest = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{head}{point}{rest[:6]}+00:00")
