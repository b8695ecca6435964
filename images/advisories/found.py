"""What a service says of a hole, in the form of an entry of advisories.yaml: answers of OSV and of Debian's tracker.

Pure: the answers come from `lookup`. What is not of the form that is expected is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from images.advisories.cvss import base_score, severity_of
from images.advisories.debian_version import DebianVersion
from images.advisories.model import Ecosystem, Severity
from images.render import normalize_name

RELEASE = "bookworm"
_LONGEST = 300  # characters of a summary that are kept
_ID = re.compile(r"[A-Z]{2,12}-[A-Za-z0-9-]{4,40}")
_PLAIN = re.compile(r"[0-9A-Za-z.+!~:-]{1,60}")


@dataclass(frozen=True)
class Found:
    """A hole as a service has it. ``affected`` is a range in the form of its ecosystem."""

    id: str
    aliases: tuple[str, ...]
    package: str
    ecosystem: Ecosystem
    affected: str
    fixed: str | None
    severity: Severity
    score: float | None
    what: str
    source: str

    @property
    def names(self) -> frozenset[str]:
        """All its ids."""
        return frozenset((self.id, *self.aliases))


def from_osv(record: Mapping[str, Any], package: str) -> Found | None:
    """What a record of OSV's says of a Python package; None where it is withdrawn or says nothing of it."""
    if record.get("withdrawn"):
        return None
    identifier = record.get("id")
    names = [
        name for name in (identifier, *_list(record.get("aliases"))) if isinstance(name, str) and _ID.fullmatch(name)
    ]
    ranges, fixed = _osv_ranges(record, package)
    if not names or not ranges:
        return None
    best = next((name for name in names if name.startswith("CVE-")), names[0])
    score = _osv_score(record)
    summary = _line(record.get("summary") or record.get("details") or "no text")
    others = tuple(sorted(set(names) - {best}))
    rated = _osv_rating(record)
    severity = severity_of(score) if score is not None else rated
    return Found(best, others, package, "pypi", ranges, fixed, severity, score, summary, f"osv.dev: {names[0]}")


def _osv_ranges(record: Mapping[str, Any], package: str) -> tuple[str, str | None]:
    """The widest range of a package, and the last version that mends it; "" where there is none.

    Several ranges become the one from the first that is affected to the last: to judge too much is safe.
    """
    lows: list[str] = []
    ends: list[tuple[str, str]] = []
    for affected in _list(record.get("affected")):
        named = affected.get("package") if isinstance(affected, dict) else None
        if not isinstance(named, dict) or named.get("ecosystem") != "PyPI":
            continue
        if normalize_name(str(named.get("name", ""))) != package:
            continue
        for one in _list(affected.get("ranges")):
            if isinstance(one, dict) and one.get("type") == "ECOSYSTEM":
                low, end = _events(one)
                lows.append(low)
                ends.append(end)
    if not lows:
        return "", None
    if len(lows) == 1:
        (low,), ((sign, high),) = lows, ends
        parts = [f">={low}"] if low not in ("", "0") else []
        parts += [f"{sign}{high}"] if high else []
        return ",".join(parts) or ">=0", high if sign == "<" and high else None
    fixes = [high for sign, high in ends if high and sign == "<"]
    if len(fixes) < len(ends):
        return ">=0", None
    last = max(fixes, key=_release)
    return f"<{last}", last


def _events(one: Mapping[str, Any]) -> tuple[str, tuple[str, str]]:
    low, end = "", ("", "")
    for event in _list(one.get("events")):
        if not isinstance(event, dict):
            continue
        for kind, sign in (("fixed", "<"), ("last_affected", "<=")):
            if isinstance(version := event.get(kind), str) and _PLAIN.fullmatch(version):
                end = (sign, version)
        if isinstance(version := event.get("introduced"), str) and _PLAIN.fullmatch(version) and not low:
            low = version
    return low, end


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:6])


def _osv_score(record: Mapping[str, Any]) -> float | None:
    vectors = [one.get("score") for one in _list(record.get("severity")) if isinstance(one, dict)]
    scores = [score for vector in vectors if isinstance(vector, str) and (score := base_score(vector)) is not None]
    return max(scores, default=None)


def _osv_rating(record: Mapping[str, Any]) -> Severity:
    words: dict[object, Severity] = {"LOW": "low", "MODERATE": "medium", "MEDIUM": "medium"}
    words |= {"HIGH": "high", "CRITICAL": "critical"}
    specific = record.get("database_specific")
    return words.get(specific.get("severity") if isinstance(specific, dict) else None, "unknown")


def from_tracker(data: Mapping[str, Any], packages: Mapping[str, str]) -> list[Found]:
    """What Debian's tracker says of source packages in these versions, for the release that images are made of."""
    found = []
    for package, version in sorted(packages.items()):
        for name, issue in sorted(_dict(data.get(package)).items()):
            release = _dict(_dict(_dict(issue).get("releases")).get(RELEASE))
            if not _ID.fullmatch(str(name)) or release.get("status") not in ("open", "undetermined", "resolved"):
                continue
            fixed = release.get("fixed_version")
            if release["status"] == "resolved":
                if not isinstance(fixed, str) or not _is_older(version, fixed):
                    continue
            else:
                fixed = None
            what = _line(_dict(issue).get("description") or "no text")
            affected = f"<{fixed}" if fixed else ">=0"
            source = f"Debian's security tracker: {name}"
            found.append(
                Found(str(name), (), package, "debian", affected, fixed, _urgency(release), None, what, source)
            )
    return found


def _is_older(version: str, fixed: str) -> bool:
    try:
        return DebianVersion(version) < DebianVersion(fixed)
    except ValueError:
        return False


def _urgency(release: Mapping[str, Any]) -> Severity:
    """Debian's word; what its security team leaves to the next point release ("no DSA") is minor."""
    words: dict[object, Severity] = {"unimportant": "low", "low": "low", "medium": "medium", "high": "high"}
    return words.get(release.get("urgency"), "low" if release.get("nodsa") else "unknown")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _line(text: object) -> str:
    """One printable line of at most `_LONGEST` characters."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"


def merged(found: Iterable[Found]) -> list[Found]:
    """One of each hole: databases have it under names of their own, and know each other's."""
    out: list[Found] = []
    for one in found:
        same = next(
            (i for i, other in enumerate(out) if other.package == one.package and other.names & one.names), None
        )
        if same is None:
            out.append(one)
        else:
            out[same] = _joined(out[same], one)
    return out


def _joined(first: Found, second: Found) -> Found:
    names = first.names | second.names
    best = next((name for name in sorted(names) if name.startswith("CVE-")), first.id)
    rated = first if first.score is not None or second.score is None else second
    return Found(
        best,
        tuple(sorted(names - {best})),
        first.package,
        first.ecosystem,
        first.affected,
        first.fixed,
        rated.severity if rated.severity != "unknown" else second.severity,
        rated.score,
        first.what if first.what != "no text" else second.what,
        first.source,
    )
