"""`invoke advisories` as typed: the gate, its counts, and a look-up that writes or does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoke.context import Context as Typed

from images.advisories.lookup import Services
from images.commands.advisories import AdvisoriesOptions, show, update
from images.commands.advisories import advisories as command
from images.context import Context
from images.core.errors import CheckFailed, RegistryFailure
from images.core.site import SiteSettings
from tests.helpers.advisories import DAY, DEFERRED, HOLE, assessments, listed
from tests.helpers.advisory_services import TORCH, advisory_services
from tests.helpers.contexts import context

SAFE = HOLE.replace('"<0.9"', '"<0.7"')


def given(root: Path, text: str) -> Context:
    made = assessments(root, text)
    return context(root=root, matrix=made.matrix, variants=made.variants, assessments=made)


def test_the_recommended_images_pass_with_their_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = given(tmp_path, listed(SAFE))
    show(one, AdvisoriesOptions(check=True))
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 + len(one.assessments.recommended)
    assert "not looked up: " in err
    assert "0 open advisories that are high, critical or not rated" in err


def test_a_widened_range_fails_with_variant_and_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = given(tmp_path, listed(SAFE.replace('"<0.7"', '">=0"')))
    with pytest.raises(CheckFailed) as error:
        show(one, AdvisoriesOptions(check=True))
    assert error.value.exit_code == 1
    assert "CVE-2026-0001 (critical 9.8)" in error.value.what
    assert error.value.do == "pin vllm 0.9.0 or newer; or recommend another image"
    err = capsys.readouterr().err
    with_vllm = [variant for variant in one.assessments.recommended if variant.backend == "vllm"]
    assert err.count("open: cu") == len(with_vllm)


def test_what_is_deferred_is_told_and_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given_here = given(tmp_path, listed(DEFERRED.replace('"<0.9"', '">=0"')))
    show(given_here, AdvisoriesOptions(check=True))
    err = capsys.readouterr().err
    assert err.count("deferred: CVE-2026-0001 (unknown, deferred until 2026-12-18): nobody could read it") == 1
    assert "0 open advisories that are high, critical or not rated, beside 1 that nobody could rate yet" in err
    with pytest.raises(CheckFailed, match="have open advisories"):
        show(given_here, AdvisoriesOptions(check=True, complete=True))


def test_what_was_not_looked_up_fails_a_complete_check(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="not all packages were looked up by a service"):
        show(given(tmp_path, listed(SAFE)), AdvisoriesOptions(check=True, complete=True))


def test_json_has_counts_and_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(given(tmp_path, listed(HOLE)), AdvisoriesOptions(only=["cu124-vllm*-xformers-sm75"], json=True))
    told = json.loads(capsys.readouterr().out)
    assert told["read"] == "2026-11-27"
    assert told["not_looked_up"] > 100
    (one,) = told["variants"]
    assert [finding["state"] for finding in one["advisories"]] == ["open"]


def test_a_single_image_shows_each_advisory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(given(tmp_path, listed(HOLE)), AdvisoriesOptions(only=["cu124-vllm*-xformers-sm75"]))
    assert "CVE-2026-0001 (critical 9.8)" in capsys.readouterr().out


def test_a_look_up_is_shown_and_nothing_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = given(tmp_path, listed(HOLE))
    with advisory_services(records={TORCH["id"]: TORCH}, named={"torch==2.6.0": [TORCH["id"]]}) as services:
        update(here, Services(services.site), DAY, AdvisoriesOptions(update=True))
    assert "CVE-2026-24747" in capsys.readouterr().out
    assert (tmp_path / "advisories.yaml").read_text() == listed(HOLE)
    assert not (tmp_path / "records").exists()


def test_a_look_up_is_written_and_then_counted(tmp_path: Path) -> None:
    here = given(tmp_path, listed(HOLE))
    with advisory_services(records={TORCH["id"]: TORCH}, named={"torch==2.6.0": [TORCH["id"]]}) as services:
        update(here, Services(services.site), DAY, AdvisoriesOptions(update=True, write=True))
    text = (tmp_path / "advisories.yaml").read_text()
    assert "- id: CVE-2026-24747" in text
    again = given(tmp_path, text)
    covered = again.assessments.coverage(again.assessments.recommended)
    assert covered.by_service > 100
    assert covered.not_looked_up == 0
    (new,) = [
        one
        for one in again.assessments.of(again.assessments.recommended[0]).findings
        if one.advisory.package == "torch"
    ]
    assert new.state == "open"


def test_where_nobody_answers_nothing_is_written(tmp_path: Path) -> None:
    here = given(tmp_path, listed(HOLE))
    with advisory_services() as services:
        gone = SiteSettings(osv=services.address, debian_tracker=services.address)
    with pytest.raises(RegistryFailure, match="nothing was looked up") as error:
        update(here, Services(gone, sleep=lambda _: None), DAY, AdvisoriesOptions(update=True, write=True))
    assert error.value.exit_code == 6
    assert (tmp_path / "advisories.yaml").read_text() == listed(HOLE)
    assert not (tmp_path / "records").exists()


def test_where_the_second_service_does_not_answer_nothing_is_written(tmp_path: Path) -> None:
    here = given(tmp_path, listed(HOLE))
    with advisory_services(broken={"/tracker": [(404, b"gone")]}) as services, pytest.raises(RegistryFailure):
        update(here, Services(services.site), DAY, AdvisoriesOptions(update=True, write=True))
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("words", [{"complete": True}, {"write": True}])
def test_flags_that_go_with_others(words: dict[str, bool], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(Typed(), **{**_defaults(), **words})
    assert ended.value.code == 2
    assert "--complete goes with --check" in capsys.readouterr().err


def _defaults() -> dict[str, object]:
    flags = {flag.name.replace("-", "_"): flag.default for flag in command.flags}
    return {**flags, "debug": False}
