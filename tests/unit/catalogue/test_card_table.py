"""Cards joined to what is published, and to records of runs on cards: rows, lines, the README's table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from images.build.plan import input_hashes
from images.cards.data import Card, all_cards
from images.cards.names import match_card
from images.catalogue import readme_table as page
from images.catalogue.card_table import (
    card_cells,
    card_rows,
    image_cells,
    one_by_one,
    published_rows,
    row_json,
    with_records,
)
from images.catalogue.evidence import UNSEEN, Seen, image_evidence, records_evidence
from images.catalogue.model import Proof
from images.catalogue.readme_table import CATALOGUE, FAMILIES, group_by_image, table_text, with_images_table
from images.commands import options as typed
from images.commands.cards import CardsOptions, show_cards
from images.commands.render import RenderOptions, write_generated
from images.core.errors import CheckFailed, Unsafe, UsageError
from images.matrix.model import Matrix
from images.matrix.variants import Variant, Variants, make_variants
from images.proof.on_card.records.reading import read_gpu_records
from images.proof.on_card.records.record import GpuRecord, Step
from images.render.document import IMAGES
from tests.helpers.catalogues import CPU, NOW, SM75, SM75_SDPA, catalogue, catalogue_of, image
from tests.helpers.contexts import context, silent
from tests.helpers.matrices import ROOT, matrix, variants, with_lists
from tests.helpers.nonempty import nonempty

README = IMAGES.page
SM90 = "cu130-vllm0.33.0-flash-attn-sm90"
RECORD = GpuRecord(
    card="NVIDIA H200",
    capability="9.0",
    memory=0,
    driver="580.159.04",
    created=NOW,
    place="image",
    variant=SM90,
    input_hash="ab" * 32,
    versions={},
    steps=(Step("stack", "passed"), Step("vllm: tiny image", "passed")),
    name="h200",
)
TODAY = {SM90: RECORD.input_hash}
PROVEN = "proven in a container on NVIDIA H200, driver 580.159.04"


def card(name: str) -> Card:
    return match_card(name, all_cards()).card


def proof(level: str, where: str | None = None, status: str = "passed") -> Proof:
    driver = "535.104.05" if where else None
    result = {"level": level, "status": status, "reason": "", "card": where, "driver": driver, "at": NOW}
    return Proof.model_validate(result)


def test_evidence_of_a_published_image_names_the_card_or_says_that_there_was_none() -> None:
    one = image(SM75)
    assert image_evidence(one) == Seen("audited, CPU canary")
    tested = (proof("audit"), proof("canary", "Tesla T4"), proof("server", "Tesla T4"))
    said = Seen("proven in a container on Tesla T4, driver 535.104.05", NOW[:10])
    assert image_evidence(one.model_copy(update={"evidence": tested})) == said
    unserved = (proof("audit"), proof("canary", "Tesla T4"), proof("server", None, "not run"))
    said = Seen("tried in a container on Tesla T4, driver 535.104.05: canary", NOW[:10])
    assert image_evidence(one.model_copy(update={"evidence": unserved})) == said
    served = (proof("audit"), proof("canary"), proof("server"))
    assert image_evidence(one.model_copy(update={"evidence": served})).words == "audited, CPU canary, CPU server"
    unseen = (proof("audit"), proof("canary", "Tesla T4", "not run"))
    assert image_evidence(one.model_copy(update={"evidence": unseen})).words == "audited"


def test_a_record_speaks_of_a_published_image_if_it_is_of_this_very_one() -> None:
    one = image(SM75)
    own = replace(RECORD, variant=SM75, input_hash=one.input, image_digest=one.digest)
    assert image_evidence(one, [own]) == Seen(PROVEN, NOW[:10], "records/cards/h200.json")
    assert image_evidence(one, [replace(own, image_digest="", image_id=one.config)]).words == PROVEN
    other = f"sha256:{'f' * 64}"
    for stranger in nonempty(
        [
            replace(own, image_digest=other),
            replace(own, image_digest=other, image_id=other),
            replace(own, input_hash="cd" * 32),
            replace(own, variant=SM90),
        ]
    ):
        assert image_evidence(one, [stranger]).words == "audited, CPU canary"
    (row,) = published_rows(matrix(), variants(), [card("Tesla T4")], catalogue(SM75), [own])
    assert row.evidence.words == PROVEN


def test_evidence_of_records_is_the_strongest_then_the_newest_and_a_failure_comes_first() -> None:
    assert records_evidence([RECORD], SM90, TODAY) == Seen(PROVEN, NOW[:10], "records/cards/h200.json")
    assert records_evidence([RECORD], SM75, TODAY) == Seen(UNSEEN)
    older = replace(RECORD, created="2025-01-01T00:00:00Z", card="NVIDIA H100 80GB HBM3", name="h100")
    assert records_evidence([RECORD, older], SM90, TODAY).words == PROVEN
    outside = replace(RECORD, place="packages", driver="", created="2027-01-01T00:00:00Z")
    assert records_evidence([outside], SM90, TODAY).words == "proven on NVIDIA H200 (its packages)"
    unpacked = replace(outside, place="unpacked", driver="580")
    alone = "proven unpacked, without an engine, on NVIDIA H200, driver 580"
    assert records_evidence([outside, unpacked], SM90, TODAY).words == alone
    assert records_evidence([outside, unpacked, RECORD], SM90, TODAY).words == PROVEN
    bad = replace(older, steps=(*older.steps, Step("compile", "failed", "it did")))
    failed = Seen("compile: failed on NVIDIA H100 80GB HBM3", "2025-01-01", "records/cards/h100.json")
    assert records_evidence([RECORD, bad], SM90, TODAY) == failed


def test_a_run_in_which_no_model_answered_is_not_called_proven() -> None:
    tried = replace(RECORD, steps=(Step("machine", "passed"), Step("canary on the card", "passed")))
    said = "tried in a container on NVIDIA H200, driver 580.159.04: machine, canary on the card"
    assert records_evidence([tried], SM90, TODAY).words == said
    many = replace(tried, steps=tuple(Step(f"step {number}", "passed") for number in range(5)))
    assert records_evidence([many], SM90, TODAY).words.endswith(": step 0, step 1, step 2 and 2 more")
    served = replace(RECORD, place="packages", created="2025-01-01T00:00:00Z")
    assert (
        records_evidence([tried, served], SM90, TODAY).words
        == "proven on NVIDIA H200, driver 580.159.04 (its packages)"
    )


def test_a_measurement_for_fit_proves_nothing_and_its_failure_neither() -> None:
    measured = replace(RECORD, steps=(Step("machine", "passed"), Step("fit: 7b-fp8", "failed", "no kernel")))
    assert records_evidence([measured], SM90, TODAY) == Seen(UNSEEN)
    assert records_evidence([RECORD, measured], SM90, TODAY).words == PROVEN


def test_a_record_of_other_inputs_speaks_of_an_earlier_build() -> None:
    earlier = replace(RECORD, input_hash="cd" * 32, name="earlier")
    unnamed = replace(RECORD, input_hash="", name="unnamed")
    for one in nonempty([earlier, unnamed]):
        assert records_evidence([one], SM90, TODAY).words == f"{PROVEN} (an earlier build)"
    packages = replace(earlier, place="packages")
    assert records_evidence([packages], SM90, TODAY).words.endswith("580.159.04 (its packages, an earlier build)")
    # what is known of today's image goes before it, be it weaker, or the earlier one's a failure
    weak = replace(RECORD, place="packages", name="weak")
    assert records_evidence([earlier, weak], SM90, TODAY).record == "records/cards/weak.json"
    bad = replace(earlier, steps=(Step("vllm", "failed", "it did"),))
    assert records_evidence([bad, RECORD], SM90, TODAY).words == PROVEN
    assert records_evidence([bad], SM90, TODAY).words == "vllm: failed on NVIDIA H200 (an earlier build)"
    # a variant that the matrix has no more, or inputs that nobody worked out
    assert records_evidence([RECORD], SM90, {}).words == f"{PROVEN} (an earlier build)"


def test_evidence_is_told_with_its_day_and_record() -> None:
    seen = records_evidence([RECORD], SM90, TODAY)
    assert str(seen) == f"{PROVEN} ({NOW[:10]}, records/cards/h200.json)"
    assert seen.markdown() == f"[{PROVEN}](records/cards/h200.json), {NOW[:10]}"
    assert (str(Seen(UNSEEN)), Seen(UNSEEN).markdown()) == (UNSEEN, UNSEEN)


def test_every_card_has_its_published_image_or_its_own_reason() -> None:
    names = ("Tesla T4", "RTX 2080 Ti", "RTX 4090", "RTX 4080", "GTX 980 Ti")
    t4, turing, first, second, old = published_rows(
        matrix(), variants(), [card(name) for name in names], catalogue(SM75, SM75_SDPA)
    )
    for row in (t4, turing):
        assert row.published
        assert (row.published.variant, str(row.evidence)) == (SM75, "audited, CPU canary")
    for row in (first, second):
        assert row.image is None
        assert row.why
        assert row.why.what == f"no image for {row.card.name}"
        assert "the catalogue has none" in row.why.cause
    assert old.why
    assert "below 6.0" in old.why.cause
    assert [cells[0] for cells in image_cells([t4, turing, first])] == [SM75]
    assert image_cells([t4, turing])[0][-2:] == ["2", "audited, CPU canary"]


def test_where_the_recommended_image_is_not_published_the_next_one_is_told() -> None:
    (row,) = published_rows(matrix(), variants(), [card("Tesla T4")], catalogue(CPU, SM75_SDPA))
    assert row.published
    assert row.published.variant == SM75_SDPA


# -- an arch with an ordered list


@pytest.fixture(scope="module")
def listed() -> tuple[Matrix, Variants]:
    made = with_lists(sm86=("cu130 flash-attn", "cu128 flash-attn", "cu118 flash-attn"))
    return made, make_variants(made)


def for_8_6(made: Variants, *stacks: str) -> list[Variant]:
    by_stack = {v.stack: v for v in made.valid.values() if v.id.endswith("-flash-attn-sm86")}
    return [by_stack[stack] for stack in stacks]


def test_a_card_has_a_row_for_each_image_of_its_list(listed: tuple[Matrix, Variants]) -> None:
    rows = card_rows(*listed, [card("RTX 3090"), card("RTX 3080 Ti"), card("Tesla T4")])
    assert [row.card.name for row in rows] == [card(name).name for name in ("RTX 3090", "RTX 3080 Ti", "Tesla T4")]
    expected = [(one.id, one.min_driver) for one in for_8_6(listed[1], "cu130", "cu128", "cu118")]
    for row in nonempty(rows[:2]):
        cells = [card_cells(one) for one in one_by_one([row])]
        assert [(one[3], one[4]) for one in cells] == expected
        assert {one[0] for one in cells} == {row.card.name}
        told = row_json(row)
        images = [(told["image"], told["min_driver"])]
        images += [(one["image"], one["min_driver"]) for one in told["older_drivers"]]
        assert images == expected
    assert row_json(rows[2])["older_drivers"] == []
    assert row_json(rows[2])["acted"] is None


def test_records_speak_of_each_image_of_a_list(listed: tuple[Matrix, Variants]) -> None:
    first, second, third = for_8_6(listed[1], "cu130", "cu128", "cu118")
    (row,) = with_records(card_rows(*listed, [card("RTX 3090")]), [replace(RECORD, variant=second.id)], TODAY)
    evidence = {one.image.id: one.evidence.words for one in one_by_one([row]) if one.image}
    seen = f"{PROVEN} (an earlier build)"
    assert evidence == {first.id: UNSEEN, second.id: seen, third.id: UNSEEN}


def rows_of_8_6(text: str) -> list[tuple[str, str]]:
    """Image and oldest driver of the table's rows for 8.6 alone."""
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| 8.6 ")]
    return [(one[2].strip("`"), one[3]) for one in cells]


def test_the_readmes_table_has_a_row_for_each_image_of_a_list(listed: tuple[Matrix, Variants]) -> None:
    chosen = for_8_6(listed[1], "cu130", "cu128", "cu118")
    text = table_text(*listed, [], None, {})
    assert rows_of_8_6(text) == [(one.id, one.min_driver) for one in chosen]
    assert "Where a card has several rows, it gets the first whose driver the machine has" in text
    notes = [line for line in text.splitlines() if line.startswith("- ") and ": " in line]
    for archs in (line[2:].split(": ")[0].split(", ") for line in nonempty(notes)):
        assert len(archs) == len(set(archs))


def test_a_list_of_which_some_images_are_published(listed: tuple[Matrix, Variants]) -> None:
    matrix, made = listed
    first, second, third = for_8_6(made, "cu130", "cu128", "cu118")
    (row,) = published_rows(matrix, made, [card("RTX 3090")], catalogue_of([first, third]))
    assert [one.published.variant for one in one_by_one([row]) if one.published] == [first.id, third.id]
    (row,) = published_rows(matrix, made, [card("RTX 3090")], catalogue_of([second]))
    assert [one.published.variant for one in one_by_one([row]) if one.published] == [second.id]
    text = table_text(matrix, made, [], catalogue_of([first, third]), {})
    assert rows_of_8_6(text) == [(one.id, one.min_driver) for one in (first, third)]


def test_a_named_card_is_told_what_older_drivers_get(
    listed: tuple[Matrix, Variants], capsys: pytest.CaptureFixture[str]
) -> None:
    here = context(matrix=listed[0], variants=listed[1])
    first, second, third = for_8_6(listed[1], "cu130", "cu128", "cu118")
    show_cards(here, CardsOptions(["RTX 3090"]))
    out = capsys.readouterr().out
    assert f"{first.id}, driver from 580.65.06" in out
    assert f"note: with a driver older than 580.65.06 it is {second.id}, driver from 525.60.13" in out
    assert f"note: with a driver older than 525.60.13 it is {third.id}, driver from 450.80.02" in out
    show_cards(here, CardsOptions(["RTX 3090"], "580"))
    assert "older than" not in capsys.readouterr().out


def test_the_table_of_all_cards_counts_cards(
    listed: tuple[Matrix, Variants], capsys: pytest.CaptureFixture[str]
) -> None:
    report, err = silent()
    show_cards(context(report, matrix=listed[0], variants=listed[1]), CardsOptions(json=True))
    rows = json.loads(capsys.readouterr().out)
    names = [row["card"] for row in rows]
    assert len(names) == len(set(names))
    assert f"{len(rows)} cards, {sum(row['image'] is not None for row in rows)} with an image" in err.getvalue()


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "saved.json"
    path.write_text(catalogue(SM75, CPU).to_json(), encoding="utf-8")
    return str(path)


def test_cards_of_a_saved_catalogue(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_cards(context(), CardsOptions(["2080 Ti"], "535.104", json=True, offline=saved))
    (result,) = json.loads(capsys.readouterr().out)["images"]
    assert (result["variant"], result["reference"]) == (SM75, image(SM75).digest)
    show_cards(context(), CardsOptions(json=True, offline=saved))
    listed = {row["card"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["Tesla T4"]["published"]["digest"] == image(SM75).digest
    assert {proof["level"] for proof in listed["Tesla T4"]["published"]["evidence"]} == {"audit", "stack", "canary"}
    assert listed["GeForce RTX 4090"]["published"] is None
    with pytest.raises(SystemExit) as exited:
        typed.run(lambda: show_cards(context(), CardsOptions(["RTX 4090"], offline=saved)))
    assert exited.value.code == 4


def test_without_a_catalogue_the_records_speak(capsys: pytest.CaptureFixture[str]) -> None:
    show_cards(context(), CardsOptions(["Tesla T4"], "535.104"))
    assert f"  evidence: {UNSEEN}" in capsys.readouterr().out


# -- the README's table


def test_the_table_of_images_without_a_catalogue() -> None:
    text = table_text(matrix(), variants(), [RECORD], None, TODAY)
    seen = f"[{PROVEN}](records/cards/h200.json), {NOW[:10]}"
    assert f"| 9.0 | H100, H200, H20 | `{SM90}` | 580.65.06 | {seen} |" in text
    assert f"| 7.5 | {FAMILIES['7.5']} | `{SM75}` | 525.60.13 | {UNSEEN} |" in text
    assert f"| - | no card | `{CPU}` | - | CPU canary, CPU server |" in text
    assert "- 7.0: AWQ needs 7.5" in text


def test_the_table_of_images_with_a_catalogue_has_what_is_published_alone() -> None:
    text = table_text(matrix(), variants(), [RECORD], catalogue(SM75_SDPA, CPU), {})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == "| `--arch` | cards | image | driver from | to pull | how far it is proven |"
    assert rows[2:] == [
        f"| 7.5 | {FAMILIES['7.5']} | `{SM75_SDPA}` | 525.60.13 | 1.50 GB | audited, CPU canary |",
        f"| - | no card | `{CPU}` | - | 1.50 GB | audited, CPU canary |",
    ]
    assert "as of 2026-11-21" in text


def test_every_capability_with_an_image_has_a_name_for_its_cards() -> None:
    table = with_records(card_rows(matrix(), variants(), all_cards()), [], {})
    assert {arch.capability for group in group_by_image(table) for arch in group.archs} == FAMILIES.keys()


def test_a_committed_catalogue_is_what_the_readme_tells(tmp_path: Path) -> None:
    before = {README: "\n".join(["head", *IMAGES.marks, "tail"]), "other": "page"}
    (tmp_path / CATALOGUE).write_text(catalogue(SM75).to_json(), encoding="utf-8")
    after = with_images_table(tmp_path, matrix(), variants(), before, {})
    assert after["other"] == "page"
    assert "`catalogue.json`" in after[README]
    assert with_images_table(tmp_path, matrix(), variants(), after, {}) == after
    (tmp_path / CATALOGUE).write_text("{}", encoding="utf-8")
    with pytest.raises(Unsafe, match="cannot be trusted"):
        with_images_table(tmp_path, matrix(), variants(), before, {})


def test_a_readme_without_a_place_for_the_table_is_told() -> None:
    with pytest.raises(UsageError, match="no place for the table of images"):
        IMAGES.fill_in({}, "new")


def test_the_readme_holds_the_table_of_images_of_today() -> None:
    text = (ROOT / README).read_text(encoding="utf-8")
    today = input_hashes(context(), (record.variant for record in read_gpu_records()))
    assert today
    assert with_images_table(ROOT, matrix(), variants(), {README: text}, today)[README] == text, "./inv render"


def test_render_looks_at_the_table_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(root: object, matrix: object, variants: object, before: dict[str, str], _: object) -> dict[str, str]:
        return {**before, README: before[README] + "other"}

    monkeypatch.setattr(page, "with_images_table", other)
    with pytest.raises(CheckFailed) as caught:
        write_generated(context(), RenderOptions(check=True))
    assert f"differs: {README}" in caught.value.cause
