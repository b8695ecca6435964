"""The advisories of an image for its bill of materials: CycloneDX vulnerabilities, each with a VEX state. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from cyclonedx.model.component import Component
from cyclonedx.model.impact_analysis import ImpactAnalysisJustification, ImpactAnalysisState
from cyclonedx.model.vulnerability import (
    BomTarget,
    Vulnerability,
    VulnerabilityAnalysis,
    VulnerabilityRating,
    VulnerabilityReference,
    VulnerabilityScoreSource,
    VulnerabilitySeverity,
    VulnerabilitySource,
)

from images.advisories import Assessment, Finding

_JUSTIFICATIONS = {
    "lock": ImpactAnalysisJustification.PROTECTED_BY_MITIGATING_CONTROL,
    "guard": ImpactAnalysisJustification.PROTECTED_AT_PERIMITER,
    "setting": ImpactAnalysisJustification.PROTECTED_AT_RUNTIME,
}


def vulnerabilities(assessment: Assessment, parts: Iterable[Component]) -> list[Vulnerability]:
    """One for each advisory in whose range the image is; it names the component that it is about."""
    by_package: dict[str, str] = {}
    for part in parts:
        kind = "debian" if part.purl is not None and part.purl.type == "deb" else "pypi"
        by_package.setdefault(f"{kind}:{_plain(part.name)}", str(part.bom_ref))
    return [_vulnerability(finding, _component(finding, by_package)) for finding in assessment.findings]


def _component(finding: Finding, by_package: dict[str, str]) -> str:
    """The reference of the affected component; the image itself where its package goes by another name."""
    key = f"{finding.advisory.ecosystem}:{_plain(finding.advisory.package)}"
    return by_package.get(key, "image")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _vulnerability(finding: Finding, component: str) -> Vulnerability:
    advisory = finding.advisory
    rating = VulnerabilityRating(
        score=Decimal(str(advisory.score)) if advisory.score is not None else None,
        severity=VulnerabilitySeverity(advisory.severity),
        method=VulnerabilityScoreSource.OTHER if advisory.score is not None else None,
    )
    references = [
        VulnerabilityReference(id=name, source=VulnerabilitySource(name=name.partition("-")[0]))
        for name in advisory.aliases
    ]
    return Vulnerability(
        bom_ref=f"advisory {advisory.id}",
        id=advisory.id,
        source=VulnerabilitySource(name=advisory.source),
        references=references,
        ratings=[rating],
        description=advisory.what,
        recommendation=f"{advisory.package} {advisory.fixed} or newer" if advisory.fixed else None,
        analysis=analysis(finding),
        affects=[BomTarget(ref=component)],
    )


def analysis(finding: Finding) -> VulnerabilityAnalysis:
    """The VEX state: what is not reached or closed does not affect the image; what nobody has judged is in triage."""
    state, justification = ImpactAnalysisState.EXPLOITABLE, None
    if finding.state == "not reached":
        state, justification = ImpactAnalysisState.NOT_AFFECTED, ImpactAnalysisJustification.CODE_NOT_REACHABLE
    elif finding.closing is not None:
        state, justification = ImpactAnalysisState.NOT_AFFECTED, _JUSTIFICATIONS[finding.closing.kind]
    elif finding.reach.answer == "unknown":
        state = ImpactAnalysisState.IN_TRIAGE
    return VulnerabilityAnalysis(state=state, justification=justification, detail=finding.why)
