"""What services say, as entries; what is not of their form is left out."""

from __future__ import annotations

from typing import Any

import pytest

from images.advisories.found import Found, from_osv, from_tracker, merged
from tests.helpers.advisory_services import TORCH, hole


def found(record: dict[str, Any], package: str = "torch") -> Found:
    one = from_osv(record, package)
    assert one is not None
    return one


def test_a_record_becomes_an_entry() -> None:
    one = found(TORCH)
    assert (one.id, one.aliases) == ("CVE-2026-24747", ("GHSA-63cw-57p8-fm3p",))
    assert (one.affected, one.fixed, one.severity, one.score) == ("<2.10.0", "2.10.0", "high", 8.8)
    assert one.source == "osv.dev: GHSA-63cw-57p8-fm3p"


@pytest.mark.parametrize(
    ("events", "affected", "fixed"),
    [
        ([{"introduced": "0"}, {"fixed": "2.6.0"}], "<2.6.0", "2.6.0"),
        ([{"introduced": "0.8.3"}, {"fixed": "0.14.1"}], ">=0.8.3,<0.14.1", "0.14.1"),
        ([{"introduced": "0"}, {"last_affected": "5.6.3"}], "<=5.6.3", None),
        ([{"introduced": "1.0"}], ">=1.0", None),
        ([{"introduced": "0"}], ">=0", None),
    ],
)
def test_events_become_a_range(events: list[dict[str, str]], affected: str, fixed: str | None) -> None:
    one = found(hole("CVE-2026-0007", "torch", *events))
    assert (one.affected, one.fixed) == (affected, fixed)


def test_several_ranges_become_the_widest() -> None:
    record = hole("CVE-2026-0007", "torch", {"introduced": "2.0"}, {"fixed": "2.1.1"})
    more = {"type": "ECOSYSTEM", "events": [{"introduced": "2.9"}, {"fixed": "2.10.1"}]}
    record["affected"][0]["ranges"].append(more)
    assert found(record).affected == "<2.10.1"
    record["affected"][0]["ranges"].append({"type": "ECOSYSTEM", "events": [{"introduced": "3"}]})
    assert found(record).affected == ">=0"


def test_a_rating_in_words_is_taken_where_there_is_no_vector() -> None:
    assert found(hole("CVE-2026-0007", "torch", database_specific={"severity": "MODERATE"})).severity == "medium"
    assert found(hole("CVE-2026-0007", "torch")).severity == "unknown"


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"id": 7, "affected": "all"},
        hole("CVE-2026-0007", "numpy"),
        {**hole("CVE-2026-0007", "torch"), "withdrawn": "2026-01-01T00:00:00Z"},
        hole("not an id\n", "torch"),
        {"id": "CVE-2026-0007", "affected": [{"package": {"ecosystem": "npm", "name": "torch"}, "ranges": []}]},
    ],
)
def test_what_says_nothing_of_the_package_is_left_out(record: dict[str, Any]) -> None:
    assert from_osv(record, "torch") is None


def test_text_of_others_is_one_printable_line() -> None:
    one = found(hole("CVE-2026-0007", "torch", summary="a\x1b[31m\nb" + "c" * 1000))
    assert one.what.startswith("a [31m b")
    assert len(one.what) == 300
    bad = hole("CVE-2026-0007", "torch", {"introduced": "0"}, {"fixed": "1; rm -rf /"})
    assert found(bad).affected == ">=0"


def test_names_of_one_hole_are_one_entry() -> None:
    pysec = hole("PYSEC-2026-9", "torch", {"introduced": "0"}, {"fixed": "2.10.0"}, aliases=["CVE-2026-24747"])
    (one,) = merged([found(pysec), found(TORCH)])
    assert one.id == "CVE-2026-24747"
    assert one.aliases == ("GHSA-63cw-57p8-fm3p", "PYSEC-2026-9")
    assert (one.severity, one.score, one.what) == ("high", 8.8, "the unpickler")
    assert len(merged([found(TORCH), found(hole("CVE-2026-0008", "torch"))])) == 2


def tracker(**release: str) -> dict[str, Any]:
    return {"openssl": {"CVE-2026-0009": {"description": "a hole", "releases": {"bookworm": release}}}}


@pytest.mark.parametrize(
    ("release", "affected", "severity"),
    [
        ({"status": "open", "urgency": "not yet assigned"}, ">=0", "unknown"),
        ({"status": "open", "urgency": "unimportant"}, ">=0", "low"),
        ({"status": "open", "urgency": "not yet assigned", "nodsa": "Minor issue"}, ">=0", "low"),
        ({"status": "undetermined", "urgency": "high"}, ">=0", "high"),
        ({"status": "resolved", "fixed_version": "3.0.12-1", "urgency": "medium"}, "<3.0.12-1", "medium"),
    ],
)
def test_the_trackers_word_for_the_release(release: dict[str, str], affected: str, severity: str) -> None:
    (one,) = from_tracker(tracker(**release), {"openssl": "3.0.11-1~deb12u2"})
    assert (one.ecosystem, one.affected, one.severity) == ("debian", affected, severity)


@pytest.mark.parametrize(
    "data",
    [
        tracker(status="resolved", fixed_version="3.0.11-1~deb12u2"),
        tracker(status="resolved", fixed_version="0"),
        tracker(status="resolved", fixed_version="no version!"),
        tracker(status="resolved"),
        {"openssl": {"TEMP-1": {"releases": {"bookworm": {"status": "open"}}}, "a b": {"releases": []}}},
        {"openssl": {"CVE-2026-0009": {"releases": {"trixie": {"status": "open"}}}}},
        {"openssl": []},
        {},
    ],
)
def test_what_is_mended_or_malformed_is_left_out(data: dict[str, Any]) -> None:
    found = from_tracker(data, {"openssl": "3.0.11-1~deb12u2"})
    assert [one.id for one in found if one.id.startswith("CVE")] == []
