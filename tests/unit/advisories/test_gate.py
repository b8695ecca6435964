"""The gate on what is recommended and on what is published."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from images.advisories import gate
from images.core.errors import Unsafe, UsageError
from tests.helpers.advisories import DAY, DEFERRED, HEAD, HOLE, SM75, assessments, judged, known, listed
from tests.helpers.matrices import matrix, variants
from tests.helpers.nonempty import nonempty

SAFE = HOLE.replace('"<0.9"', '"<0.7"')


def test_what_is_recommended_has_no_severe_open_advisory(tmp_path: Path) -> None:
    safe = assessments(tmp_path, listed(SAFE))
    safe.check_recommended()
    assert safe.recommended
    medium = HOLE.replace("severity: critical", "severity: medium").replace('"<0.9"', '"<99"')
    other = assessments(tmp_path, listed(medium))
    other.check_recommended()
    with_vllm = [variant for variant in other.recommended if variant.backend == "vllm"]  # the hole is vLLM's
    assert all(other.of(variant).having("open") for variant in nonempty(with_vllm))


def test_what_is_deferred_may_be_recommended_until_its_day(tmp_path: Path) -> None:
    waiting = DEFERRED.replace('"<0.9"', '">=0"')
    now = assessments(tmp_path, listed(waiting))
    now.check_recommended()
    first = next(variant for variant in now.recommended if variant.backend == "vllm")
    (finding,) = now.of(first).severe_open
    assert finding.state == "open"
    assert finding.name == "CVE-2026-0001 (unknown, deferred until 2026-12-18)"
    later = HEAD.replace("2026-11-27", "2026-12-19")
    with pytest.raises(UsageError, match="has an open advisory"):
        assessments(tmp_path, listed(waiting, head=later)).check_recommended()


def test_what_is_deferred_is_published_where_it_is_accepted(tmp_path: Path) -> None:
    file = known(DEFERRED)
    with pytest.raises(Unsafe, match="deferred until 2026-12-18"):
        gate.refuse_open(file, [judged(file)], [])
    gate.refuse_open(file, [judged(file)], ["CVE-2026-0001"])


def test_a_wider_range_names_the_variant_its_place_and_the_cure(tmp_path: Path) -> None:
    """The project's own matrix, and a copy of a list that passed, with one range widened."""
    places = gate.places_of(matrix(), variants()).items()
    recommended = next((name, found) for name, found in places if variants().valid[name].backend == "vllm")
    wide = SAFE.replace('"<0.7"', '">=0"').replace('"0.9.0"', '"99.1"')
    with pytest.raises(UsageError) as error:
        assessments(tmp_path, listed(wide)).check_recommended()
    name, (place, *_) = recommended
    said = f"matrix.yaml: recommended.archs.{place.arch}.{place.index}: {name} has an open advisory"
    assert error.value.what.startswith(said)
    assert "CVE-2026-0001 (critical 9.8)" in error.value.what
    assert error.value.do == "pin vllm 99.1 or newer; or recommend another image"
    assert error.value.where.startswith("matrix.yaml:")
    assert error.value.where.endswith("advisories.yaml:4")


def test_every_recommended_arch_is_looked_at() -> None:
    places = [place for found in gate.places_of(matrix(), variants()).values() for place in found]
    listed = matrix().recommended.archs
    wanted = [(arch, index) for arch in nonempty(list(listed)) for index in range(len(listed[arch]))]
    assert sorted((place.arch, place.index) for place in places) == sorted(wanted)


def test_the_cure_says_what_is_missing_and_what_is_to_be_judged() -> None:
    head = 'schema: 1\nread: 2026-11-27\nprotections:\n  guard-key: {kind: guard, what: "a key on every path"}\n'
    entry = HOLE.replace('fixed: "0.9.0"', "fixed: null").replace("answer: reached", "answer: unknown")
    file = known(entry + '    closed_by:\n      - {kind: guard, by: [guard-key], what: "x"}\n', head=head)
    said = gate.cure(file, judged(file).findings[0])
    assert "give the image guard-key (a key on every path)" in said
    assert "judge in advisories.yaml:6" in said


def test_publishing_refuses_what_nobody_accepted() -> None:
    file = known(HOLE)
    with pytest.raises(Unsafe) as error:
        gate.refuse_open(file, [judged(file)], ())
    assert error.value.exit_code == 7
    assert error.value.what.startswith(f"{SM75} has an open advisory: CVE-2026-0001")
    assert error.value.do.endswith("--accept CVE-2026-0001")


@pytest.mark.parametrize("name", ["CVE-2026-0001", "GHSA-aaaa-bbbb-cccc"])
def test_an_advisory_is_accepted_by_any_of_its_names(name: str) -> None:
    file = known(HOLE)
    assert judged(file).severe_open
    gate.refuse_open(file, [judged(file)], (name,))


def test_accepting_one_does_not_accept_another() -> None:
    other = HOLE.replace("CVE-2026-0001", "CVE-2026-0002").replace("[GHSA-aaaa-bbbb-cccc]", "[]")
    file = known(HOLE, other)
    with pytest.raises(Unsafe, match="CVE-2026-0002"):
        gate.refuse_open(file, [judged(file)], ("CVE-2026-0001",))


def test_a_name_that_is_no_advisory_is_a_mistake() -> None:
    file = known(HOLE)
    with pytest.raises(UsageError) as error:
        gate.refuse_open(file, [judged(file)], ("CVE-2026-0010",))
    assert "nearest: CVE-2026-0001" in error.value.do


def test_what_is_accepted_and_not_open_here_is_no_mistake() -> None:
    file = known(SAFE)
    assert judged(file).findings == ()
    gate.refuse_open(file, [judged(file)], ("CVE-2026-0001",))


@pytest.mark.parametrize(("days", "said", "refused"), [(0, False, False), (30, False, False), (31, True, False)])
def test_an_old_list_is_said(days: int, said: bool, refused: bool) -> None:
    file = known()
    assert bool(gate.age_line(file, DAY + timedelta(days))) is said
    gate.refuse_stale(file, DAY + timedelta(days), accepted=refused)


def test_a_list_of_more_than_ninety_days_is_refused() -> None:
    file = known()
    gate.refuse_stale(file, DAY + timedelta(90), accepted=False)
    with pytest.raises(Unsafe, match="91 days old: nothing is published by it"):
        gate.refuse_stale(file, DAY + timedelta(91), accepted=False)
    gate.refuse_stale(file, DAY + timedelta(91), accepted=True)
