"""Advisories in a bill of materials, with their VEX states."""

from __future__ import annotations

import json

import pytest

from images.distribution import sbom
from tests.helpers.advisories import HEAD, HOLE, SM75, judged, known
from tests.helpers.catalogues import digest

PACKAGES = sbom.Packages((("vllm", "0.8.5.post1", ""), ("Starlette", "1.10.0", "")), (("openssl", "3.0", "amd64"),))
NOT = HOLE.replace("answer: reached", "answer: not-reached")
GUARD = HEAD + 'protections:\n  guard-key: {kind: guard, what: "a key", file: guard.py}\n'


@pytest.mark.parametrize(
    ("entry", "state", "justification"),
    [
        (HOLE, "exploitable", None),
        (NOT, "not_affected", "code_not_reachable"),
        (HOLE.replace("backend: vllm", "backend: transformers"), "in_triage", None),
        (
            HOLE + '    closed_by: [{kind: guard, by: [guard-key], what: "x"}]\n',
            "not_affected",
            "protected_at_perimeter",
        ),
        (
            HOLE + '    closed_by: [{kind: lock, package: starlette, version: ">=1", what: "x"}]\n',
            "not_affected",
            "protected_by_mitigating_control",
        ),
    ],
)
def test_a_finding_has_a_vex_state(entry: str, state: str, justification: str | None) -> None:
    one = judged(known(entry, head=GUARD), rootfs={"guard.py": ""})
    bill = json.loads(sbom.make(SM75, digest("x"), PACKAGES, "2026-11-27T12:00:00Z", one))
    (told,) = bill["vulnerabilities"]
    assert told["id"] == "CVE-2026-0001"
    assert told["analysis"]["state"] == state
    assert told["analysis"].get("justification") == justification
    assert told["ratings"] == [{"method": "other", "score": 9.8, "severity": "critical"}]
    assert told["affects"] == [{"ref": "python vllm 0.8.5.post1"}]
    assert [one["id"] for one in told["references"]] == ["GHSA-aaaa-bbbb-cccc"]
    assert told["recommendation"] == "vllm 0.9.0 or newer"


def test_without_advisories_the_bill_is_as_it_was() -> None:
    bill = json.loads(sbom.make(SM75, digest("x"), PACKAGES, "2026-11-27T12:00:00Z"))
    assert "vulnerabilities" not in bill


def test_the_same_image_and_list_give_the_same_bill() -> None:
    one = judged(known(HOLE))
    first = sbom.make(SM75, digest("x"), PACKAGES, "2026-11-27T12:00:00Z", one)
    assert sbom.make(SM75, digest("x"), PACKAGES, "2026-11-27T12:00:00Z", one) == first
