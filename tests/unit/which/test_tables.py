"""What the program `which` is built with: whole, small, and what pull's own code says."""

from __future__ import annotations

import json
from functools import cache
from itertools import combinations
from typing import Any

from images.cards import Card, all_cards, choose_images
from images.matrix import KNOWN_ARCHS, Judge, make_variants, parse_arch
from images.which.tables import program_tables
from tests.helpers.matrices import edited, matrix, variants, with_lists
from tests.helpers.nonempty import nonempty


@cache
def tables() -> dict[str, Any]:
    return program_tables(matrix(), variants())


def test_they_are_small_and_json() -> None:
    assert len(json.dumps(tables())) < 200_000
    assert tables()["form"] == 1


def test_every_variant_stands_there_in_the_matrixs_order() -> None:
    assert [one["id"] for one in tables()["variants"]] == list(variants().valid)


def test_the_first_of_each_order_is_what_pull_takes() -> None:
    for text in nonempty(matrix().archs):
        (pick,) = choose_images(matrix(), variants(), [Card("x", parse_arch(text), 0, "")]).picks
        number, place = tables()["order"][text][0]
        assert tables()["variants"][number]["id"] == pick.variant.id
        assert place == 0


def test_each_order_has_all_that_carry_the_arch() -> None:
    for text in nonempty(matrix().archs):
        carrying = {name for name, one in variants().valid.items() if parse_arch(text) in one.archs}
        assert {tables()["variants"][number]["id"] for number, _ in tables()["order"][text]} == carrying


def test_what_is_forbidden_on_several_archs_is_what_is_on_one_of_them() -> None:
    """The program asks for each arch by itself."""
    judge = Judge(matrix())
    alone = {text: set(tables()["forbidden"].get(text, ())) for text in KNOWN_ARCHS if text not in matrix().archs}
    assert any(alone.values())
    for one, other in nonempty(list(combinations(alone, 2))):
        both = (parse_arch(one), parse_arch(other))
        for number, variant in enumerate(variants().valid.values()):
            if variant.archs:
                found = judge.rules_against(variant.stack, variant.backend, variant.attention, both)
                assert bool(found) == (number in alone[one] | alone[other])


def test_no_sentence_has_what_stood_for_something_else() -> None:
    said = json.dumps({**tables(), "catalogue": ""})
    for word in ("99.9", "sm999", "{name} {", "1 GB of memory"):
        assert word not in said
    assert "{arch}" in tables()["refused"][""]["what"]
    assert tables()["never"]["small"]["what"] == "no image for {name}: {memory} GB of memory are too little"
    assert tables()["run"]["after"][-1] == "{reference}"


def test_an_arch_without_an_image_has_a_sentence() -> None:
    assert tables()["refused"]["5.2"]["exit"] == 4
    assert not set(tables()["refused"]) & set(matrix().archs)


def test_names_lead_to_the_archs_of_the_card_list() -> None:
    named = {name: arch for name, arch, _ in tables()["names"]}
    for card in nonempty(list(all_cards())):
        words = [
            word
            for word in card.name.lower().replace("-", " ").split()
            if word not in ("nvidia", "geforce", "tesla", "quadro")
        ]
        assert named[" ".join(words)] == str(card.arch) or len({c.arch for c in all_cards() if same(c, card)}) > 1
    assert named["h100"] == "9.0"
    assert "rtx" not in named


def same(one: Card, other: Card) -> bool:
    """Whether two names are one without the brand's words."""
    brands = ("GeForce ", "Tesla ", "Quadro ", "NVIDIA ")
    texts = [one.name, other.name]
    for brand in brands:
        texts = [text.replace(brand, "") for text in texts]
    return texts[0].replace("-", " ").lower() == texts[1].replace("-", " ").lower()


def test_another_matrix_gives_other_tables() -> None:
    moved = with_lists(sm86=("cu129 flash-attn",))
    assert program_tables(moved, make_variants(moved))["order"]["8.6"] != tables()["order"]["8.6"]
    driver = edited(('floor: "580.65.06"', 'floor: "580.65.07"'))
    assert program_tables(driver, make_variants(driver))["variants"] != tables()["variants"]
