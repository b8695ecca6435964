"""What each advisory means for each variant: not reached, closed, or open. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from images.advisories.debian_version import in_debian_range
from images.advisories.model import Advisories, Advisory, Closing, Ecosystem, Protection, Reach
from images.advisories.packages import Carried
from images.matrix import Variant, When, in_range, when_matches

State = Literal["not reached", "closed", "open"]
# The text of a file below dockerfiles/rootfs, which every image carries; None where there is none.
Rootfs = Callable[[str], str | None]

_UNJUDGED = Reach(answer="unknown", why="nobody has judged it for this image yet")


@dataclass(frozen=True)
class Finding:
    """An advisory whose range has a variant's version of its package, and what becomes of it there.

    ``closing`` is what closes it; ``missing`` are protections that would, and that this image was not seen to have;
    ``deferred`` whether nobody could rate it, and the list says that this may wait.
    """

    advisory: Advisory
    version: str
    reach: Reach
    closing: Closing | None = None
    missing: tuple[str, ...] = ()
    deferred: bool = False

    @property
    def state(self) -> State:
        """In a word."""
        if self.reach.answer == "not-reached":
            return "not reached"
        return "closed" if self.closing else "open"

    @property
    def why(self) -> str:
        """The reason for the state."""
        return (
            f"{self.closing.kind}: {self.closing.what}" if self.state == "closed" and self.closing else self.reach.why
        )

    @property
    def name(self) -> str:
        """ "CVE-2026-22778 (critical 9.8)"."""
        score = f" {self.advisory.score:g}" if self.advisory.score is not None else ""
        until = f", deferred until {self.advisory.deferred.until}" if self.deferred and self.advisory.deferred else ""
        return f"{self.advisory.id} ({self.advisory.severity}{score}{until})"


@dataclass(frozen=True)
class Assessment:
    """A variant with all advisories in whose range it is, the most severe first."""

    variant: Variant
    findings: tuple[Finding, ...]
    carried: Carried = field(repr=False)

    def having(self, state: State) -> tuple[Finding, ...]:
        """Those in one state."""
        return tuple(finding for finding in self.findings if finding.state == state)

    @property
    def severe_open(self) -> tuple[Finding, ...]:
        """Open ones of severity high, critical or unknown: what publish refuses."""
        return tuple(finding for finding in self.having("open") if finding.advisory.severe)

    @property
    def refused(self) -> tuple[Finding, ...]:
        """Those of them that are not deferred: what an image is not recommended with."""
        return tuple(finding for finding in self.severe_open if not finding.deferred)


_ORDER = ("critical", "high", "unknown", "medium", "low")


def assess(known: Advisories, variant: Variant, carried: Carried, rootfs: Rootfs) -> Assessment:
    """Judge all advisories for a variant."""
    findings = []
    for advisory in known.advisories:
        version = affected_version(known, advisory, carried)
        if version is not None:
            findings.append(_judge(known, advisory, version, variant, carried, rootfs))
    findings.sort(key=lambda one: (_ORDER.index(one.advisory.severity), one.advisory.id))
    return Assessment(variant, tuple(findings), carried)


def affected_version(known: Advisories, advisory: Advisory, carried: Carried) -> str | None:
    """The version of its package that is carried and in its range; None where there is none."""
    packages = carried.of(advisory.ecosystem)
    for name in (advisory.package, *(own for own, other in known.same_code.items() if other == advisory.package)):
        version = packages.get(name)
        if version is not None and version_in_range(advisory.ecosystem, version, advisory.affected):
            return version
    return None


def version_in_range(ecosystem: Ecosystem, version: str, wanted: str) -> bool:
    """Whether a version is in a range of its ecosystem's form."""
    return in_debian_range(version, wanted) if ecosystem == "debian" else in_range(version, wanted)


def _judge(
    known: Advisories, advisory: Advisory, version: str, variant: Variant, carried: Carried, rootfs: Rootfs
) -> Finding:
    reach = next((one for one in advisory.reaches if holds_for(one.when, variant)), _UNJUDGED)
    missing: list[str] = []
    for closing in advisory.closed_by:
        if not holds_for(closing.when, variant):
            continue
        if closing.kind == "lock":
            there = carried.python.get(closing.package or "")
            if there is not None and in_range(there, closing.version or ""):
                return Finding(advisory, version, reach, closing)
            continue
        absent = [name for name in closing.by if not is_present(known.protections[name], variant, rootfs)]
        if not absent:
            return Finding(advisory, version, reach, closing)
        missing += absent
    deferred = advisory.deferred is not None and known.read <= advisory.deferred.until
    return Finding(advisory, version, reach, None, tuple(dict.fromkeys(missing)), deferred)


def is_present(protection: Protection, variant: Variant, rootfs: Rootfs) -> bool:
    """Whether a variant's image has a protection, by what can be seen of it."""
    if not protection.has_evidence or not holds_for(protection.when, variant):
        return False
    if protection.file is not None:
        text = rootfs(protection.file)
        if text is None or (protection.contains is not None and protection.contains not in text):
            return False
    env: Mapping[str, str] = dict(variant.env)
    if any(not fnmatchcase(env.get(name, ""), wanted) for name, wanted in protection.env.items()):
        return False
    return not protection.args or _has_words(variant.args, protection.args)


def _has_words(args: Iterable[str], wanted: list[str]) -> bool:
    """Whether these words, each a glob, stand side by side among a server's arguments."""
    words = list(args)
    starts = range(len(words) - len(wanted) + 1)
    return any(all(fnmatchcase(words[i + k], glob) for k, glob in enumerate(wanted)) for i in starts)


def holds_for(when: When, variant: Variant) -> bool:
    """Whether all conditions hold for a variant."""
    return when_matches(
        when,
        stack=variant.stack,
        backend=variant.backend,
        attention=variant.attention,
        archs=variant.archs,
        pins=dict(variant.pins),
        cuda=variant.cuda,
    )
