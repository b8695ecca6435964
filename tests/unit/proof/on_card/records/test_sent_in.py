"""A record that somebody sent in: what was changed, and what does not belong together, is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from images.commands import options as typed
from images.commands.records import RecordsOptions, check_sent_in
from images.core.errors import CheckFailed, UsageError
from images.proof.on_card.records.reading import read_gpu_record
from images.proof.on_card.records.record import GpuRecord, Step
from images.proof.on_card.records.sent_in import PublishedAs
from tests.helpers.catalogues import SM75, catalogue
from tests.helpers.contexts import context, silent
from tests.helpers.nonempty import nonempty
from tests.helpers.sent_in import NOW, TODAY, VARIANT, changed, checked, good_record, sealed

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return sealed(good_record().as_data())


def step(data: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in data["steps"] if one["name"] == name)
    return found


def test_a_whole_record_holds(good: dict[str, Any], tmp_path: Path) -> None:
    found = checked(good, tmp_path)
    code = found.pop("image's code")
    assert code.said == "not checked"
    for finding in nonempty(found.values()):
        assert finding.said == "holds", finding


def test_what_stands_in_the_file_is_what_was_sealed(good: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(good))
    record = read_gpu_record(path)
    assert record.seal
    path.write_text(record.to_json())  # written again, by whoever keeps it
    assert checked(json.loads(path.read_text()), tmp_path)["seal"].said == "holds"


EDITS: list[Change] = [
    lambda data: data.update(card="GeForce RTX 2080 Ti"),
    lambda data: data.update(driver="550.54.14"),
    lambda data: data.update(input_hash="cd" * 32),
    lambda data: data.update(image_digest=f"sha256:{'9' * 64}"),
    lambda data: data.update(given="gpus"),
    lambda data: data.update(created="2026-11-28T10:00:01+00:00"),
    lambda data: data["versions"].update(torch="2.6.1"),
    lambda data: step(data, "vllm: 3b").update(seconds=80.0),
    lambda data: data["steps"].pop(),
    lambda data: data["notes"].append("a note"),
    lambda data: data["figures"].append({"name": "decode", "value": 1.0, "unit": "tokens/s", "of": {}, "runs": []}),
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_record_is_told_by_its_seal(good: dict[str, Any], edit: Change, tmp_path: Path) -> None:
    seal = checked(changed(good, edit), tmp_path)["seal"]
    assert seal.said == "refused"
    assert "it was changed since" in seal.why


def test_a_seal_of_another_record_is_told(good: dict[str, Any], tmp_path: Path) -> None:
    other = sealed(replace(good_record(), notes=("another",)).as_data())
    assert "it was changed since" in checked({**good, "seal": other["seal"]}, tmp_path)["seal"].why
    # who makes the seed right has another question, and these are not its logits
    forged = {**good["seal"], "logits": other["seal"]["logits"]}
    assert "from the right ones" in checked({**good, "seal": forged}, tmp_path)["seal"].why
    for wrong in nonempty(["", "AAAA", "?", "A" * 4000]):
        assert checked({**good, "seal": {**good["seal"], "logits": wrong}}, tmp_path)["seal"].said == "refused"
    assert "it has none" in checked({**good, "seal": None}, tmp_path)["seal"].why
    on_cpu = checked(sealed(good_record().as_data(), "cpu"), tmp_path)["seal"]
    assert "answered on cpu" in on_cpu.why


# Edits by somebody who seals the record again: what does not belong together is found all the same.
FORGED: list[tuple[str, Change, str]] = [
    ("verdict", lambda data: data.update(ok=False), "its steps say True"),
    ("verdict", lambda data: data["steps"].append(data["steps"][0]), "there twice: machine"),
    ("verdict", lambda data: step(data, "vllm: two cards").update(verdict="passed"), "vllm: two cards"),
    ("image", lambda data: data.update(capability="8.0"), "has no code for 8.0"),
    ("image", lambda data: data.update(input_hash=""), "of which inputs"),
    ("card", lambda data: data.update(capability="8.0"), "has the compute capability 7.5"),
    ("card", lambda data: data.update(memory=24 * 2**30), "24.0 GiB, Tesla T4 has 16 GB"),
    ("card", lambda data: step(data, "machine")["facts"].update(name="NVIDIA H200"), "its first step NVIDIA H200"),
    ("card", lambda data: step(data, "stack: image")["facts"]["card"].update(name="NVIDIA L4"), "torch saw NVIDIA L4"),
    ("driver", lambda data: data.update(driver=""), "which driver"),
    ("driver", lambda data: data.update(driver="470.82"), "too old"),
    ("packages", lambda data: data["versions"].update(torch="2.7.0"), "torch 2.7.0, the lock has 2.6.0"),
    ("packages", lambda data: data["versions"].update(python="3.12.1"), "the image has 3.11"),
    ("packages", lambda data: data["versions"].pop("vllm"), "does not say which vllm"),
    ("packages", lambda data: data["versions"].update(jax="1.0"), "jax 1.0 is not in the lock"),
    ("times", lambda data: data.update(created="2026-11-28T12:20:00+00:00"), "in the future"),
    ("times", lambda data: data.update(created="2024-01-01T00:00:00+00:00"), "there was no image"),
    ("times", lambda data: data.update(ended="2026-11-28T09:00:00+00:00"), "ended before it began"),
    ("times", lambda data: data.update(ended="2026-11-28T10:01:00+00:00"), "took longer than it lasted"),
    ("times", lambda data: step(data, "vllm: tiny image").update(seconds=2.0), "takes 4 at the least"),
    ("times", lambda data: step(data, "vllm: tiny image").update(seconds=30.0), "longer than the whole"),
    ("times", lambda data: step(data, "canary on the card").update(seconds=2.0), "longer than the whole"),
    ("times", lambda data: step(data, "audit").update(seconds=-1.0), "no step takes so long"),
    ("times", lambda data: step(data, "audit").update(seconds=9999.0), "no step takes so long"),
    (
        "answers",
        lambda data: step(data, "canary on the card")["facts"].update({"greatest relative error": 0.01}),
        "golden logits are 0.01 away",
    ),
    ("answers", lambda data: step(data, "canary on the card").update(facts={}), "golden logits are None away"),
    ("answers", lambda data: step(data, "vllm: tiny image")["facts"]["said"].update(text="!!!!"), "answered '!!!!'"),
    (
        "answers",
        lambda data: step(data, "vllm: tiny image")["facts"]["logprob distance"].update(text=0.6),
        "a logprob is 0.6 from golden",
    ),
    ("answers", lambda data: step(data, "vllm: tiny image")["facts"].pop("said"), "does not tell what was said"),
    ("answers", lambda data: step(data, "vllm: 3b")["facts"]["image"]["said"].pop("text"), "other tokens"),
    ("answers", lambda data: step(data, "vllm: 3b").update(facts={}), "does not tell what was said"),
    (
        "figures",
        lambda data: data["figures"].append({"name": "decode", "value": 9.0, "unit": "s", "of": {}, "runs": [1.0]}),
        "decode: 9.0 is not among its runs",
    ),
    (
        "figures",
        lambda data: data["figures"].append({"name": "decode", "value": -9.0, "unit": "s", "of": {}, "runs": []}),
        "no measurement",
    ),
]


@pytest.mark.parametrize(("what", "edit", "why"), FORGED)
def test_what_does_not_belong_together_is_found_under_a_new_seal(
    good: dict[str, Any], what: str, edit: Change, why: str, tmp_path: Path
) -> None:
    found = checked(sealed(changed(good, edit)), tmp_path)
    assert found["seal"].said == "holds"
    assert found[what].said == "refused", found
    assert why in found[what].why


def test_a_card_or_image_that_nobody_knows(good: dict[str, Any], tmp_path: Path) -> None:
    assert "no list of cards has Tesla T4" in checked(good, tmp_path, card=None)["card"].why
    found = checked(good, tmp_path, variant=None, locked={})
    assert "the matrix has no image" in found["image"].why
    assert found["packages"].said == "not checked"
    assert checked(good, tmp_path, now=NOW - timedelta(hours=3))["times"].said == "refused"


def test_an_image_must_have_been_published_where_a_catalogue_is_given(good: dict[str, Any], tmp_path: Path) -> None:
    here = PublishedAs(VARIANT.id, TODAY, f"sha256:{'3' * 64}", f"sha256:{'5' * 64}")
    assert checked(good, tmp_path, published=[here])["image"].said == "holds"
    other = replace(here, digest=f"sha256:{'7' * 64}")
    assert "was not published there" in checked(good, tmp_path, published=[other])["image"].why
    assert checked(good, tmp_path, published=[replace(other, config=f"sha256:{'4' * 64}")])["image"].said == "holds"
    assert "no image" in checked(good, tmp_path, published=[replace(here, input="cd" * 32)])["image"].why
    assert "no image" in checked(good, tmp_path, published=[])["image"].why
    nameless = sealed(replace(good_record(), image_digest="", image_id="").as_data())
    assert checked(nameless, tmp_path, published=[here])["image"].said == "not checked"
    assert checked(good, tmp_path, today="cd" * 32)["image"].said == "not checked"


def test_the_audits_digest_is_that_of_other_records_of_the_image(good: dict[str, Any], tmp_path: Path) -> None:
    def other(digest: str, **of: str) -> GpuRecord:
        fields: dict[str, Any] = {"name": "kept", "steps": (Step("audit", "passed", facts={"digest": digest}),), **of}
        return replace(good_record(), **fields)

    assert checked(good, tmp_path, others=[other("12" * 32)])["image's code"].said == "holds"
    refused = checked(good, tmp_path, others=[other("34" * 32)])["image's code"]
    assert "not that of kept" in refused.why
    assert (
        checked(good, tmp_path, others=[other("34" * 32, input_hash="cd" * 32)])["image's code"].said == "not checked"
    )


# -- the command


def run(data: dict[str, Any], folder: Path, **options: Any) -> str:
    path = folder / "mine.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    report, err = silent()
    check_sent_in(context(report), RecordsOptions("check", str(path), **options), NOW)
    return err.getvalue()


def test_the_command_says_what_holds_and_refuses_the_rest(
    good: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # today's inputs are others than the record's
    assert "none refuses it" in run(good, tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert "holds: seal" in said
    assert any(line.startswith("not checked: image: its image was made of other inputs") for line in said)
    with pytest.raises(CheckFailed, match=r"mine.json is refused: seal") as caught:
        run(changed(good, EDITS[0]), tmp_path)
    assert caught.value.exit_code == 1
    capsys.readouterr()
    with pytest.raises(CheckFailed):
        run(changed(good, EDITS[0]), tmp_path, json=True)
    told = json.loads(capsys.readouterr().out)
    assert {one["what"]: one["said"] for one in told["findings"]}["seal"] == "refused"


def test_the_command_holds_the_image_against_a_catalogue(good: dict[str, Any], tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    saved.write_text(catalogue(SM75).to_json(), encoding="utf-8")
    with pytest.raises(CheckFailed, match="image") as caught:
        run(good, tmp_path, offline=str(saved))
    assert "was published there" in caught.value.cause


def test_another_action_or_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    for options in nonempty(
        [
            RecordsOptions("list", str(tmp_path / "no.json")),
            RecordsOptions("check", str(tmp_path / "no.json")),
            RecordsOptions("check", str(tmp_path / "none.json")),
        ]
    ):
        with pytest.raises(UsageError):
            check_sent_in(context(), options, NOW)
    with pytest.raises(SystemExit) as exited:
        typed.run(lambda: check_sent_in(context(), RecordsOptions("list", "x"), NOW))
    assert exited.value.code == 2
