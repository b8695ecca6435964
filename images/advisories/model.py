"""advisories.yaml as values: known holes in what images carry, whether serving reaches them, and what closes them."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from images.advisories.debian_version import parse_debian_range
from images.core import YamlFile
from images.matrix import Mark, MatrixPart, RangeText, When

Ecosystem = Literal["pypi", "debian"]
Severity = Literal["low", "medium", "high", "critical", "unknown"]
# Days after the list's own date, at most, for which what nobody could rate may be deferred.
LONGEST_DEFERRAL = 31
# What nobody has rated counts as high: it may be.
SEVERE: tuple[Severity, ...] = ("high", "critical", "unknown")
Answer = Literal["reached", "not-reached", "unknown"]
# What makes an advisory harmless where its version is carried: a version of another package of the lock, a default that
# the image is started with, or the guard before the server.
ClosingKind = Literal["lock", "setting", "guard"]

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,12}-[A-Za-z0-9-]{4,40}$")]
Package = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]{0,100}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,600}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Score = Annotated[float, Field(ge=0, le=10)]
# Below dockerfiles/rootfs: what is copied into every image.
RootfsPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")]


def _day(value: object) -> object:
    # YAML reads 2026-11-27 as a date, JSON has it as text.
    return date.fromisoformat(value) if isinstance(value, str) else value


Day = Annotated[date, BeforeValidator(_day)]


class Protection(MatrixPart):
    """What closes advisories in an image, and by what it is seen to be there: a claim alone counts for nothing.

    ``file`` is below dockerfiles/rootfs and has the text ``contains``; ``args`` and ``env`` are what the variant's
    server is started with, ``env`` by name. All that is named must be there; what names none of them never is.
    """

    kind: Literal["setting", "guard"]
    what: Line
    when: When = When()
    file: RootfsPath | None = None
    contains: Line | None = None
    args: list[Line] = Field(default_factory=list)
    env: dict[str, str] = Field(default_factory=dict)

    @property
    def has_evidence(self) -> bool:
        """Whether the checkout can be asked for it."""
        return bool(self.file or self.args or self.env)


class Reach(MatrixPart):
    """Whether serving comes to the broken code on the points that ``when`` names, and why."""

    answer: Answer
    when: When = When()
    why: Line


class Closing(MatrixPart):
    """What closes an advisory where ``when`` holds.

    ``lock``: a ``package`` of the same lock whose ``version`` is in a range; else ``by``: protections that must all be
    there.
    """

    kind: ClosingKind
    what: Line
    when: When = When()
    by: list[Word] = Field(default_factory=list)
    package: Package | None = None
    version: RangeText | None = None

    @model_validator(mode="after")
    def _whole(self) -> Closing:
        if self.kind == "lock" and not (self.package and self.version and not self.by):
            raise ValueError("a closing of kind lock names `package` and `version`")
        if self.kind != "lock" and (not self.by or self.package or self.version):
            raise ValueError(f"a closing of kind {self.kind} names `by`: protections of this file")
        return self


class Probe(MatrixPart):
    """A test that fires an advisory's first stage at an image's real server: what it saw, on which image, when."""

    name: Line
    image: Line
    date: Day
    result: Literal["refused", "not there", "succeeded", "not run"]
    note: Line | None = None


class Deferral(MatrixPart):
    """Why an advisory that nobody could read yet does not fail the check, and until which day of the list.

    It stays open and is told as such everywhere; to publish, it has to be accepted by name all the same.
    """

    why: Line
    until: Day


class Advisory(MatrixPart):
    """A known hole. ``affected`` is a range of versions: PEP 440's for pypi, dpkg's for debian (by source package).

    ``fixed`` is the first version without it, None where there is none; ``score`` its CVSS base score where known.
    """

    id: Identifier
    aliases: list[Identifier] = Field(default_factory=list)
    package: Package
    ecosystem: Ecosystem = "pypi"
    affected: Annotated[str, AfterValidator(str.strip)]
    fixed: Line | None
    severity: Severity
    score: Score | None = None
    what: Line
    reaches: list[Reach] = Field(default_factory=list)
    closed_by: list[Closing] = Field(default_factory=list)
    probe: list[Probe] = Field(default_factory=list)
    deferred: Deferral | None = None
    mark: Mark
    source: Line
    read: Day

    @model_validator(mode="after")
    def _range(self) -> Advisory:
        if self.ecosystem == "debian":
            parse_debian_range(self.affected)
        else:
            _Range(affected=self.affected)
        if self.deferred and self.severity != "unknown":
            raise ValueError("only what nobody has rated can be deferred; this is rated")
        return self

    @property
    def severe(self) -> bool:
        """Whether a gate looks at it."""
        return self.severity in SEVERE

    @property
    def names(self) -> frozenset[str]:
        """All its ids."""
        return frozenset((self.id, *self.aliases))


class _Range(MatrixPart):
    affected: RangeText


class ByHand(MatrixPart):
    """Packages whose advisories somebody read, from what, and when: no service answered for them."""

    ecosystem: Ecosystem
    packages: Annotated[list[Package], Field(min_length=1)]
    source: Line
    date: Day


class Advisories(MatrixPart, YamlFile):
    """The whole of advisories.yaml. ``read`` is the day on which it was last brought up to date.

    ``same_code``: a package that is another one's code under a name of its own, whose advisories hold for it.
    """

    version: Literal[1] = Field(alias="schema")
    read: Day
    same_code: dict[Package, Package] = Field(default_factory=dict)
    by_hand: list[ByHand] = Field(default_factory=list)
    protections: dict[Word, Protection] = Field(default_factory=dict)
    advisories: list[Advisory]

    def where_is(self, identifier: str) -> str:
        """The place of an advisory by its id."""
        index = next((i for i, one in enumerate(self.advisories) if one.id == identifier), 0)
        return self.where("advisories", index)


def json_schema() -> str:
    """The JSON schema of advisories.yaml, as committed beside the package."""
    schema = Advisories.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
