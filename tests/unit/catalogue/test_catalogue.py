"""The catalogue: what lies is refused, what is added or rolled back stays whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from images.catalogue.model import (
    Catalogue,
    check_labels,
    proofs_of,
    read_catalogue,
    shared_bytes,
    with_image,
    without_newest,
)
from images.core.errors import NothingSelected, Unsafe, UsageError
from images.proof.smoke.record import LevelResult, ProofRecord
from tests.helpers.catalogues import CPU, NOW, SHARED, SM75, SM75_SDPA, catalogue, content, digest, fields, image
from tests.helpers.matrices import variants

EMPTY = Catalogue.model_validate({"schema": 1, "updated": NOW})
LATER = "2026-11-22T12:00:00Z"


def valid_content() -> dict[str, Any]:
    return content([fields(variants().valid[SM75]), fields(variants().valid[SM75_SDPA])])


def test_what_is_written_is_read() -> None:
    whole = catalogue(SM75, SM75_SDPA, CPU)
    assert read_catalogue(whole.to_json(), "here") == whole
    assert json.loads(whole.to_json())["schema"] == 1


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a digest that is none": lambda c: c["images"][0].update(digest="sha256:abc"),
    "a digest of other letters": lambda c: c["images"][0].update(digest="sha256:" + "G" * 64),
    "a number for a word": lambda c: c["images"][0].update(variant=7),
    "a word for a number": lambda c: c["images"][0].update(unpacked="5"),
    "a size below zero": lambda c: c["images"][0].update(unpacked=-1),
    "a field of no meaning": lambda c: c["images"][0].update(run="rm -rf /"),
    "a variant that is a command": lambda c: c["images"][0].update(variant="x;rm"),
    "an escape sequence": lambda c: c["images"][0].update(revision="\x1b[2J"),
    "an arch that no card has": lambda c: c["images"][0].update(archs=["7.7"]),
    "archs beyond the audit": lambda c: c["images"][0].update(archs=["7.5", "8.0"]),
    "a driver that is none": lambda c: c["images"][0].update(min_driver="new"),
    "no evidence": lambda c: c["images"][0].update(evidence=[]),
    "nothing proven": lambda c: [p.update(status="not run") for p in c["images"][0]["evidence"]],
    "a failed level": lambda c: c["images"][0]["evidence"][0].update(status="failed"),
    "one image twice": lambda c: c["images"].append(c["images"][0]),
    "one digest for two": lambda c: c["images"][1].update(digest=c["images"][0]["digest"]),
    "a tag of another": lambda c: c["images"][0].update(tag="cu124-0123456789ab"),
    "a layer without size": lambda c: c["layers"].popitem(),
    "a wrong sum": lambda c: c["images"][0].update(compressed=1),
    "a tag of a stranger": lambda c: c["moving"].update(sm75=[digest("stranger")]),
    "a tag of nothing": lambda c: c["moving"].update(sm75=[]),
    "tags exchanged": lambda c: c["moving"].update({SM75: c["moving"][SM75_SDPA]}),
    "no list": lambda c: c.update(images={}),
    "no time": lambda c: c.update(updated="yesterday"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_catalogue_that_lies_is_refused(lie: str) -> None:
    read_catalogue(json.dumps(valid_content()), "here")
    lying = valid_content()
    LIES[lie](lying)
    with pytest.raises(Unsafe, match="cannot be trusted") as caught:
        read_catalogue(json.dumps(lying), "127.0.0.1:5000/x")
    assert caught.value.exit_code == 7
    assert caught.value.where == "127.0.0.1:5000/x"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "\x00"])
def test_what_is_no_catalogue_is_refused(text: str) -> None:
    with pytest.raises(Unsafe):
        read_catalogue(text, "here")


NEWER: dict[str, dict[str, Any]] = {
    "the number alone": {"schema": 2},
    "a new field": {"schema": 2, "mirrors": ["a.example"]},
    "other fields": {"schema": 3, "images": {"by": "digest"}, "updated": 7},
    "nothing else": {"schema": 12},
}


@pytest.mark.parametrize("newer", NEWER)
def test_a_later_form_wants_a_newer_version(newer: str) -> None:
    whole = valid_content() if newer != "nothing else" else {}
    with pytest.raises(UsageError, match=rf"form {NEWER[newer]['schema']}, this checkout reads form 1") as caught:
        read_catalogue(json.dumps(whole | NEWER[newer]), "here")
    assert caught.value.exit_code == 2
    assert "use a newer version" in caught.value.do


@pytest.mark.parametrize("schema", [0, -1, True, "2", 2.0, None, [2], 10**30])
def test_a_form_that_there_cannot_be_is_refused(schema: object) -> None:
    with pytest.raises(Unsafe, match="cannot be trusted"):
        read_catalogue(json.dumps(valid_content() | {"schema": schema}), "here")


def test_a_catalogue_nested_without_end_is_refused() -> None:
    with pytest.raises(Unsafe, match="cannot be trusted"):
        read_catalogue("[" * 200_000, "here")


def sizes(*names: str) -> dict[str, int]:
    return dict(catalogue(*names).layers)


def test_images_are_added_and_tags_move() -> None:
    first = with_image(EMPTY, image(SM75), sizes(SM75), [SM75, "sm75"], NOW)
    second = with_image(first, image(SM75, "new"), {**sizes(SM75), digest(f"own {SM75} new"): 7}, [SM75, "sm75"], LATER)
    assert first.current[SM75] == image(SM75)
    assert second.current[SM75] == image(SM75, "new")
    assert second.moving["sm75"] == (image(SM75).digest, image(SM75, "new").digest)
    assert second.updated == LATER
    assert read_catalogue(second.to_json(), "here") == second


def test_the_same_image_again_changes_its_evidence_only() -> None:
    first = with_image(EMPTY, image(SM75), sizes(SM75), [SM75], NOW)
    again = image(SM75).model_copy(update={"published": LATER})
    second = with_image(first, again, sizes(SM75), [SM75], LATER)
    assert second.moving == first.moving
    assert second.images == (again,)


def test_an_immutable_tag_is_never_given_to_another_image() -> None:
    first = with_image(EMPTY, image(SM75), sizes(SM75), [SM75], NOW)
    other = image(SM75).model_copy(update={"digest": digest("other bytes")})
    with pytest.raises(Unsafe, match="is taken by another image"):
        with_image(first, other, sizes(SM75), [SM75], NOW)


def test_rolling_back_moves_all_tags_that_the_image_had() -> None:
    before = with_image(EMPTY, image(SM75_SDPA), sizes(SM75_SDPA), [SM75_SDPA, "sm75"], NOW)
    before = with_image(before, image(SM75), sizes(SM75), [SM75], NOW)
    layers = {**sizes(SM75), digest(f"own {SM75} new"): 7}
    before = with_image(before, image(SM75, "new"), layers, [SM75, "sm75"], NOW)
    after, moves = without_newest(before, SM75, LATER)
    assert {tag: one.digest for tag, one in moves.items()} == {
        SM75: image(SM75).digest,
        "sm75": image(SM75_SDPA).digest,  # what it named before, whatever that was
    }
    assert after.current[SM75] == image(SM75)
    assert image(SM75, "new") in after.images  # pulled by digest it is still there
    with pytest.raises(NothingSelected, match="cannot be rolled back"):
        without_newest(after, SM75, LATER)
    with pytest.raises(NothingSelected):
        without_newest(after, CPU, LATER)


def test_published_again_after_a_roll_back_it_is_the_newest() -> None:
    layers = {**sizes(SM75), digest(f"own {SM75} new"): 7}
    before = with_image(with_image(EMPTY, image(SM75), layers, [SM75], NOW), image(SM75, "new"), layers, [SM75], NOW)
    back, _ = without_newest(before, SM75, NOW)
    assert with_image(back, image(SM75, "new"), layers, [SM75], LATER).moving == before.moving


def test_labels_are_held_against_the_catalogue() -> None:
    labels = {
        "dev.cardstock.variant": SM75,
        "dev.cardstock.input": image(SM75).input,
        "dev.cardstock.stack": "cu124",
        "dev.cardstock.engine": "vllm",
        "dev.cardstock.attention": "xformers",
        "dev.cardstock.archs": "7.5",
        "dev.cardstock.audited-archs": "7.5",
        "dev.cardstock.min-driver": "525.60.13",
        "dev.cardstock.locked": "yes",
    }
    check_labels(image(SM75), labels, "here")
    for name in labels:
        with pytest.raises(Unsafe, match="says other things") as caught:
            check_labels(image(SM75), labels | {name: "8.0"}, "here")
        assert name in caught.value.cause
    with pytest.raises(Unsafe):
        check_labels(image(SM75), {}, "here")


def test_evidence_names_the_card_only_where_one_was_used() -> None:
    levels = (
        LevelResult(1, "audit", "passed", facts={"audited archs": ["7.5"]}),
        LevelResult(2, "stack", "passed"),
        LevelResult(3, "canary", "passed", facts={"device": "cpu, RTX 2080 Ti"}),
        LevelResult(4, "server", "not run", "no card\nfor it"),
    )
    made = proofs_of(ProofRecord("v", "i", "d", NOW, "RTX 2080 Ti", "535.104.05", "26", levels))
    assert [(one.status, one.card, one.driver) for one in made] == [
        ("passed", None, None),
        ("passed", None, None),
        ("passed", "RTX 2080 Ti", "535.104.05"),
        ("not run", None, None),
    ]
    assert made[3].reason == "no card for it"
    text = image(SM75).model_copy(update={"evidence": made}).summary()
    assert text.endswith("canary: passed (RTX 2080 Ti, driver 535.104.05); server: not run: no card for it")


def test_what_a_second_image_costs() -> None:
    whole = catalogue(SM75, CPU)
    assert shared_bytes(whole, image(SM75, "new"), [image(SM75)]) == SHARED
    assert shared_bytes(whole, image(SM75), [image(CPU)]) == 0


KNOWN = {
    "read": "2026-11-27",
    "known": 3,
    "not_reached": ["CVE-2026-0003"],
    "open": ["CVE-2026-0001", "CVE-2026-0002"],
    "severe": ["CVE-2026-0001"],
    "accepted": ["CVE-2026-0001"],
    "looked_up": 0,
    "read_by_hand": 8,
    "not_looked_up": 190,
}


def test_a_catalogue_from_before_the_list_of_advisories_is_read() -> None:
    content = valid_content()
    assert all("advisories" not in one for one in content["images"])
    assert read_catalogue(json.dumps(content), "here").images[0].advisories is None


def test_what_was_known_of_an_image_is_kept() -> None:
    content = valid_content()
    content["images"][0]["advisories"] = KNOWN
    catalogue = read_catalogue(json.dumps(content), "here")
    kept = read_catalogue(catalogue.to_json(), "here").images[0].advisories
    assert kept is not None
    assert kept.summary() == "open advisories by the list of 2026-11-27: CVE-2026-0001 and 1 of lower severity"
    assert kept.model_copy(update={"open": ()}).summary() == "no open advisory by the list of 2026-11-27"


@pytest.mark.parametrize(
    "lie", [{"read": "yesterday"}, {"open": ["a\u001b[31m"]}, {"known": -1}, {"not_looked_up": "none"}, {"more": 1}]
)
def test_what_is_said_of_holes_is_checked_as_the_rest(lie: dict[str, Any]) -> None:
    content = valid_content()
    content["images"][0]["advisories"] = {**KNOWN, **lie}
    with pytest.raises(Unsafe, match="cannot be trusted"):
        read_catalogue(json.dumps(content), "here")
