"""Reading advisories.yaml: what is wrong with it is said with line, key and the nearest right value."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.advisories.model import json_schema
from images.advisories.reader import SCHEMA_FILE, parse_advisories, read_advisories
from images.core.errors import UsageError
from tests.helpers.advisories import DAY, DEFERRED, HEAD, HOLE, known, listed
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as error:
        parse_advisories(text)
    assert error.value.exit_code == 2
    return error.value


def test_a_list_is_read() -> None:
    file = known(HOLE)
    assert file.read == DAY
    assert file.advisories[0].names == {"CVE-2026-0001", "GHSA-aaaa-bbbb-cccc"}
    assert file.advisories[0].severe
    assert file.where_is("CVE-2026-0001") == "advisories.yaml:4"


def test_an_unknown_key_is_named_with_its_line_and_the_nearest() -> None:
    error = refused(listed(HOLE.replace("    severity:", "    severty:")))
    assert "unknown key 'severty'" in error.what
    assert "nearest: severity" in error.do
    assert error.where == "advisories.yaml:9"


def test_a_word_that_is_not_allowed_is_named_with_the_nearest() -> None:
    error = refused(listed(HOLE.replace("severity: critical", "severity: kritical")))
    assert "nearest: critical" in error.do


def test_a_key_given_twice_is_refused() -> None:
    assert "a key given twice" in refused(listed(HOLE.replace("    mark: D", "    mark: D\n    mark: S"))).what


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('affected: "<0.9"', 'affected: "below 0.9"', "is not a version range"),
        ("score: 9.8", "score: 11.0", "less than or equal to 10"),
        ("read: 2026-11-27", "read: tomorrow", "read"),
        ("id: CVE-2026-0001", "id: a hole", "is not of the form"),
        ("backend: vllm", "backend: vlm", "is not allowed"),
        ('what: "a request runs code"', 'what: "two\\nlines"', "is not of the form"),
    ],
)
def test_a_wrong_value_is_refused(old: str, new: str, said: str) -> None:
    assert old in HOLE
    error = refused(listed(HOLE.replace(old, new)))
    assert said in error.what
    assert error.where.startswith("advisories.yaml:")


def test_only_what_nobody_rated_is_deferred() -> None:
    assert known(DEFERRED).advisories[0].deferred
    error = refused(listed(DEFERRED.replace("severity: unknown", "severity: high")))
    assert "only what nobody has rated can be deferred" in error.what + error.cause


def test_a_deferral_ends_within_a_month_of_the_list() -> None:
    error = refused(listed(DEFERRED.replace("2026-12-18", "2026-12-29")))
    assert error.what == "advisories.yaml: CVE-2026-0001 is deferred until 2026-12-29"
    assert error.where == "advisories.yaml:13"


def test_a_debian_range_is_checked_as_dpkg_has_it() -> None:
    entry = HOLE.replace("package: vllm", "package: openssl\n    ecosystem: debian")
    assert known(entry.replace('"<0.9"', '"<3.0.11-1~deb12u2"')).advisories[0].ecosystem == "debian"
    assert "range of Debian versions" in refused(listed(entry.replace('"<0.9"', '"~=3"'))).what


def test_one_name_stands_for_one_advisory() -> None:
    other = HOLE.replace("id: CVE-2026-0001", "id: CVE-2026-0002")
    error = refused(listed(HOLE, other))
    assert "two advisories of one name: GHSA-aaaa-bbbb-cccc" in error.what
    assert "CVE-2026-0001 has it too" in error.cause


def test_a_closing_names_a_protection_that_is_described() -> None:
    closed = HOLE + '    closed_by:\n      - {kind: guard, by: [guard-kee], what: "x"}\n'
    head = HEAD + 'protections:\n  guard-key: {kind: guard, what: "a key"}\n'
    error = refused(listed(closed, head=head))
    assert "there is no protection 'guard-kee'" in error.what
    assert "nearest: guard-key" in error.do


@pytest.mark.parametrize(
    "closing",
    ['{kind: guard, what: "x"}', '{kind: lock, what: "x"}', '{kind: lock, package: starlette, what: "x"}'],
)
def test_a_closing_says_by_what(closing: str) -> None:
    assert "a closing of kind" in refused(listed(HOLE + f"    closed_by:\n      - {closing}\n")).what


def test_a_text_to_look_for_needs_a_file() -> None:
    head = HEAD + 'protections:\n  guard-key: {kind: guard, what: "a key", contains: "compare_digest"}\n'
    assert "`contains` without a `file`" in refused(listed(head=head)).what


def test_a_huge_file_is_refused_unread() -> None:
    assert "is longer than" in refused("#" * ((4 << 20) + 1)).what


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*advisories.yaml"):
        read_advisories(tmp_path / "advisories.yaml")


def test_the_projects_own_list_is_whole() -> None:
    file = read_advisories(ROOT / "advisories.yaml")
    for advisory in nonempty(file.advisories):
        assert advisory.source
        assert advisory.read <= file.read
    for name in nonempty(file.protections):
        used = [one for one in file.advisories for closing in one.closed_by if name in closing.by]
        assert used, f"{name} closes nothing"


def test_the_committed_schema_is_the_models() -> None:
    assert (ROOT / SCHEMA_FILE).read_text(encoding="utf-8") == json_schema()
