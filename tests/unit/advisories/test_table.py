"""Assessments for people, for scripts, and as the page."""

from __future__ import annotations

from pathlib import Path

from images.advisories import table
from tests.helpers.advisories import HEAD, HOLE, SM75, assessments, judged, known, listed, variant
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty

HEAD_WITH = HEAD + 'protections:\n  guard-key: {kind: guard, what: "a key", file: opt/guard.py}\n'


def test_a_row_counts_and_names_what_is_severe() -> None:
    cells = table.summary_cells(judged(known(HOLE)))
    assert cells == [SM75, "1", "0", "0", "1", "CVE-2026-0001 (critical 9.8)"]
    assert table.summary_cells(judged(known()))[-1] == "-"


def test_a_finding_says_why() -> None:
    (finding,) = judged(known(HOLE)).findings
    assert table.finding_cells(finding)[:4] == [finding.name, "vllm 0.8.5.post1", "open", "it is served"]
    told = table.finding_json(finding)
    assert (told["state"], told["fixed"], told["affected"]) == ("open", "0.9.0", "<0.9")


def test_what_serve_says_names_three_at_most() -> None:
    assert table.open_line(judged(known())) == ""
    others = [HOLE.replace("0001", f"000{n}").replace("[GHSA-aaaa-bbbb-cccc]", "[]") for n in range(2, 7)]
    line = table.open_line(judged(known(HOLE, *others)))
    assert line.startswith(f"open advisories in {SM75}: CVE-2026-0001 (critical 9.8), ")
    assert line.count("CVE-") == 3
    assert "and 3 more" in line


def test_the_record_keeps_what_was_open_and_accepted(tmp_path: Path) -> None:
    one = assessments(tmp_path, listed(HOLE))
    kept = table.record(
        judged(one.known), one.known, one.coverage([variant()]), ["GHSA-aaaa-bbbb-cccc", "CVE-1999-0001"]
    )
    assert kept["open"] == kept["severe"] == ["CVE-2026-0001"]
    assert kept["accepted"] == ["GHSA-aaaa-bbbb-cccc"]
    assert kept["not_looked_up"] > 100
    assert kept["looked_up"] == 0


def test_the_page_has_a_row_for_each_lock_and_each_advisory(tmp_path: Path) -> None:
    other = HOLE.replace("0001", "0002").replace("[GHSA-aaaa-bbbb-cccc]", "[]").replace('"<0.9"', '"<0.1"')
    text = table.page_text(assessments(tmp_path, listed(HOLE, other, head=HEAD_WITH)))
    assert "As of 2026-11-27" in text
    assert "| `cu124-vllm0.8.5.post1` | " in text
    row = next(line for line in text.splitlines() if line.startswith("| CVE-2026-0001"))
    assert "vllm &lt;0.9" in row
    assert "**open** (it is served)" in row
    assert next(line for line in text.splitlines() if line.startswith("| CVE-2026-0002")).endswith("| none |")
    assert "| guard-key (guard) | a key | `opt/guard.py` |" in text


def test_the_committed_page_has_every_advisory_of_the_list() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    ids = [
        line.split()[2] for line in (ROOT / "advisories.yaml").read_text().splitlines() if line.startswith("  - id:")
    ]
    for identifier in nonempty(ids):
        assert f"| {identifier}, " in page
