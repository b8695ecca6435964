"""Assessments as rows for people, as JSON for scripts, and as the table of docs/security.md. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from images.advisories.checkout import Assessments
from images.advisories.gate import places_of
from images.advisories.judge import Assessment, Finding
from images.advisories.lookups import Coverage
from images.advisories.model import Advisories, Advisory

SEVERE = "high, critical or not rated"
HEADER = ["variant", "known", "not reached", "closed", "open", f"open and {SEVERE}"]
FINDING_HEADER = ["advisory", "package", "state", "why", "what"]


def summary_cells(one: Assessment) -> list[str]:
    """A variant's counts, and what a gate refuses it for."""
    counts = [str(len(one.having(state))) for state in ("not reached", "closed", "open")]
    return [one.variant.id, str(len(one.findings)), *counts, ", ".join(f.name for f in one.severe_open) or "-"]


def finding_cells(finding: Finding) -> list[str]:
    """An advisory of one variant."""
    package = f"{finding.advisory.package} {finding.version}"
    return [finding.name, package, finding.state, finding.why, finding.advisory.what]


def open_line(one: Assessment) -> str:
    """What `serve` says before it starts anything: "" where nothing severe is open."""
    names = [finding.name for finding in one.severe_open]
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"open advisories in {one.variant.id}: {shown} (./inv advisories --only '{one.variant.id}')"


def assessment_json(one: Assessment) -> dict[str, Any]:
    """A variant for scripts."""
    return {"variant": one.variant.id, "advisories": [finding_json(finding) for finding in one.findings]}


def finding_json(finding: Finding) -> dict[str, Any]:
    """An advisory of a variant for scripts."""
    advisory = finding.advisory
    return {
        "id": advisory.id,
        "aliases": advisory.aliases,
        "package": advisory.package,
        "version": finding.version,
        "ecosystem": advisory.ecosystem,
        "affected": advisory.affected,
        "fixed": advisory.fixed,
        "severity": advisory.severity,
        "score": advisory.score,
        "state": finding.state,
        "why": finding.why,
        "missing": list(finding.missing),
        "what": advisory.what,
        "source": advisory.source,
    }


def coverage_json(known: Advisories, covered: Coverage) -> dict[str, Any]:
    """How much was looked up, for scripts."""
    return {
        "read": known.read.isoformat(),
        "looked_up": covered.by_service,
        "read_by_hand": covered.by_hand,
        "not_looked_up": covered.not_looked_up,
        "unknown": list(covered.unknown),
    }


def page_text(assessments: Assessments) -> str:
    """What stands between the marks of docs/security.md: images by lock, what closes what, each advisory."""
    known = assessments.known
    groups = _groups(assessments)
    covered = assessments.coverage(assessments.variants.valid.values())
    parts = [
        f"As of {known.read} (`advisories.yaml`), {len(known.advisories)} advisories. For all images together, "
        f"{covered.text()}.",
        _table(
            [
                "images",
                "recommended for",
                "known",
                "not reached",
                "closed",
                "open",
                f"open and {SEVERE}",
            ],
            [_group_cells(assessments, names, one) for names, one in groups],
        ),
        "Each advisory, and the state in the images whose version it has:",
        _table(["advisory", "package", "what it lets one do", "in which images"], _advisory_rows(known, groups)),
        "What closes advisories, and whether the images of this checkout were seen to have it:",
        _table(["protection", "what it does", "seen"], _protection_rows(known)),
    ]
    return "\n\n".join(parts)


Group = tuple[str, Assessment]


def _groups(assessments: Assessments) -> list[Group]:
    """The variants of each lock whose findings are the same, by a name for all of them, and one of them."""
    seen: dict[tuple[str, tuple[tuple[str, str], ...]], list[Assessment]] = {}
    for variant in assessments.variants.valid.values():
        one = assessments.of(variant)
        key = (variant.lock, tuple((finding.advisory.id, finding.state) for finding in one.findings))
        seen.setdefault(key, []).append(one)
    locks = [lock for lock, _ in seen]
    named = []
    for (lock, _), same in seen.items():
        first = same[0].variant
        version = first.id.removeprefix(f"{first.stack}-").partition("-")[0]
        name = f"{first.stack}-{version}" if locks.count(lock) == 1 else f"{first.id} and {len(same) - 1} more"
        named.append((name, same[0]))
    return named


def _group_cells(assessments: Assessments, name: str, one: Assessment) -> list[str]:
    places = places_of(assessments.matrix, assessments.variants)
    mine = [found for identifier, found in places.items() if _lock(assessments, identifier) == one.variant.lock]
    archs = [place.arch + (" (older drivers)" if place.index else "") for found in mine for place in found]
    return [f"`{name}`", ", ".join(archs) or "-", *summary_cells(one)[1:]]


def _lock(assessments: Assessments, identifier: str) -> str:
    return assessments.variants.valid[identifier].lock


def _advisory_rows(known: Advisories, groups: Sequence[Group]) -> Iterable[list[str]]:
    by_id: dict[str, list[tuple[str, Finding]]] = {}
    for name, one in groups:
        for finding in one.findings:
            by_id.setdefault(finding.advisory.id, []).append((name, finding))
    for advisory in known.advisories:
        there = by_id.get(advisory.id, [])
        yield [_name(advisory), f"{advisory.package} {advisory.affected}", advisory.what, _states(there)]


def _name(advisory: Advisory) -> str:
    score = f" {advisory.score:g}" if advisory.score is not None else ""
    return f"{advisory.id}, {advisory.severity}{score} [{advisory.mark}]"


def _states(there: Sequence[tuple[str, Finding]]) -> str:
    if not there:
        return "none"
    by_state: dict[tuple[str, str], list[str]] = {}
    for name, finding in there:
        by_state.setdefault((finding.state, finding.why), []).append(name)
    return "; ".join(f"{', '.join(names)}: **{state}** ({why})" for (state, why), names in by_state.items())


def _protection_rows(known: Advisories) -> Iterable[list[str]]:
    for name, protection in known.protections.items():
        seen = [f"`{protection.file}`"] if protection.file else []
        seen += [f"`{' '.join(protection.args)}`"] if protection.args else []
        seen += [f"`{key}={value}`" for key, value in protection.env.items()]
        yield [f"{name} ({protection.kind})", protection.what, " and ".join(seen) or "no: not in this checkout"]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_") if "`" not in text else text


def record(one: Assessment, known: Advisories, covered: Coverage, accepted: Sequence[str]) -> Mapping[str, Any]:
    """What the catalogue and the provenance keep of an image's advisories."""
    names = {name for finding in one.having("open") for name in finding.advisory.names}
    return {
        "read": known.read.isoformat(),
        "known": len(one.findings),
        "not_reached": [finding.advisory.id for finding in one.having("not reached")],
        "closed": [finding.advisory.id for finding in one.having("closed")],
        "open": [finding.advisory.id for finding in one.having("open")],
        "severe": [finding.advisory.id for finding in one.severe_open],
        "accepted": sorted(set(accepted) & names),
        "looked_up": covered.by_service,
        "read_by_hand": covered.by_hand,
        "not_looked_up": covered.not_looked_up,
    }
