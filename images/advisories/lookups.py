"""Which packages a service was asked about, and when: records/lookups/ECOSYSTEM.json, written by `--update --write`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from images.advisories.model import Advisories, Ecosystem
from images.advisories.packages import Carried
from images.core import UsageError, read_json

FOLDER = "records/lookups"
ECOSYSTEMS: tuple[Ecosystem, ...] = ("pypi", "debian")


@dataclass(frozen=True)
class Lookup:
    """A question to a service: its name, the day, and the packages with their versions ("torch==2.6.0")."""

    source: str
    ecosystem: Ecosystem
    day: date
    packages: frozenset[str]

    def to_json(self) -> str:
        """As `read_lookups` reads it."""
        head = {"schema": 1, "source": self.source, "ecosystem": self.ecosystem, "date": self.day.isoformat()}
        return json.dumps({**head, "packages": sorted(self.packages)}, indent=1) + "\n"


def lookup_file(ecosystem: Ecosystem) -> str:
    """Where the last look-up of an ecosystem is kept, from the root of the checkout."""
    return f"{FOLDER}/{ecosystem}.json"


def read_lookups(root: Path) -> dict[Ecosystem, Lookup]:
    """The last look-up of each ecosystem; none where there was none. Raises UsageError for a file that is none."""
    found: dict[Ecosystem, Lookup] = {}
    for ecosystem in ECOSYSTEMS:
        name = lookup_file(ecosystem)
        if not (root / name).is_file():
            continue
        try:
            data = read_json(root / name)
            packages = frozenset(str(one) for one in data["packages"])
            found[ecosystem] = Lookup(str(data["source"]), ecosystem, date.fromisoformat(data["date"]), packages)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{name} is not the record of a look-up",
                cause=f"{type(error).__name__}: {error}",
                do="./inv advisories --update --write writes it anew; without it its packages are not looked up",
                where=name,
            ) from error
    return found


def exact(packages: Mapping[str, str]) -> frozenset[str]:
    """ "torch==2.6.0" of each."""
    return frozenset(f"{name}=={version}" for name, version in packages.items())


@dataclass(frozen=True)
class Coverage:
    """How many packages a service was asked about, a person read the advisories of, and nobody looked up."""

    by_service: int = 0
    by_hand: int = 0
    not_looked_up: int = 0
    # Parts of an image of which not even the packages are known, in words.
    unknown: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether a service was asked about each package."""
        return not (self.by_hand or self.not_looked_up or self.unknown)

    def text(self) -> str:
        """In a line."""
        rest = "".join(f"; {part}" for part in self.unknown)
        return (
            f"packages looked up by a service: {self.by_service}; read by hand: {self.by_hand}; "
            f"not looked up: {self.not_looked_up}{rest}"
        )


def coverage(known: Advisories, lookups: Mapping[Ecosystem, Lookup], carried: Iterable[Carried]) -> Coverage:
    """Of all packages of some images, each name and version once."""
    everything = list(carried)
    service = hand = neither = 0
    unknown: list[str] = []
    for ecosystem in ECOSYSTEMS:
        packages = frozenset().union(*(exact(one.of(ecosystem)) for one in everything))
        asked = packages & (lookups[ecosystem].packages if ecosystem in lookups else frozenset())
        read = {name for entry in known.by_hand if entry.ecosystem == ecosystem for name in entry.packages}
        read |= {other for other, name in known.same_code.items() if name in read}
        by_hand = {one for one in packages - asked if one.partition("==")[0] in read}
        service, hand = service + len(asked), hand + len(by_hand)
        neither += len(packages) - len(asked) - len(by_hand)
    if any(not one.debian for one in everything):
        unknown.append("Debian packages: not even listed")
    if any(not one.whole for one in everything):
        unknown.append("a stack without a lock: only its pins are known")
    return Coverage(service, hand, neither, tuple(unknown))
