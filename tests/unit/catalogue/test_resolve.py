"""Cards and what is published: which image is found for them, and why the others are not."""

from __future__ import annotations

import json

import pytest

from images.cards.data import Card, all_cards
from images.cards.names import match_card as named
from images.catalogue.model import immutable_tag, read_catalogue
from images.catalogue.resolve import image_by_name, match_images, require_match
from images.core.errors import NoImageFits, NothingSelected
from images.matrix.drivers import parse_driver
from images.matrix.variants import make_variants
from tests.golden.make_cards import PATH
from tests.helpers.catalogues import CPU, SM75, SM75_SDPA, catalogue, catalogue_of, content, fields, image
from tests.helpers.matrices import matrix, variants, with_lists


def card(name: str) -> Card:
    return named(name, all_cards()).card


def found(names: tuple[str, ...], cards: list[str], driver: str | None = None) -> list[str]:
    parsed = parse_driver(driver) if driver else None
    resolved = match_images(catalogue(*names), matrix(), variants(), [card(name) for name in cards], parsed)
    require_match(resolved)
    return [one.image.variant for one in resolved.matches]


def test_a_card_gets_the_recommended_image() -> None:
    assert found((), ["RTX 2080 Ti"], "535.104") == [SM75]
    assert found((), ["RTX 4090"]) == ["cu130-vllm0.33.0-flash-attn-sm89"]


def test_what_is_published_is_what_can_be_had() -> None:
    assert found((SM75_SDPA, CPU), ["Tesla T4"], "535.104") == [SM75_SDPA]
    with pytest.raises(NoImageFits, match="no image for GeForce RTX 4090 is published here") as caught:
        found((SM75, CPU), ["RTX 4090"])
    assert caught.value.exit_code == 4
    assert "cu130-vllm0.33.0-flash-attn-sm89" in caught.value.do


@pytest.mark.parametrize(
    ("published", "driver", "stack"),
    [
        (("cu130", "cu128", "cu118"), "580", "cu130"),
        (("cu130", "cu128", "cu118"), None, "cu130"),
        (("cu130", "cu128", "cu118"), "535", "cu128"),
        (("cu128", "cu118"), "580", "cu128"),  # the first of the list is not published
        (("cu130", "cu118"), "535", "cu118"),  # nor the one for this driver
        (("cu126", "cu124"), "580", "cu126"),  # nothing of the list: as well as may be
    ],
)
def test_the_first_of_a_list_that_is_published_and_runs(
    published: tuple[str, ...], driver: str | None, stack: str
) -> None:
    listed = with_lists(sm86=("cu130 flash-attn", "cu128 flash-attn", "cu118 flash-attn"))
    made = make_variants(listed)
    same = [v for v in made.valid.values() if v.id.endswith("-flash-attn-sm86") and v.stack in published]
    resolved = match_images(
        catalogue_of(same), listed, made, [card("RTX 3090")], parse_driver(driver) if driver else None
    )
    assert [one.image.stack for one in resolved.matches] == [stack]


def test_a_driver_too_old_is_recognised() -> None:
    with pytest.raises(NoImageFits, match="driver 440") as caught:
        found((), ["Tesla T4"], "440.33.01")
    assert caught.value.do.startswith("install driver")
    resolved = match_images(catalogue(), matrix(), variants(), [card("Tesla T4")], parse_driver("470.82.01"))
    assert [one.image.stack for one in resolved.matches] == ["cu118"]
    lost = {one.image.variant: one.why for one in resolved.passed_over}
    assert lost[SM75] == "it needs driver 525.60.13, here is 470.82.01"


def test_a_driver_that_the_catalogue_wants_newer_counts() -> None:
    result = fields(variants().valid[SM75]) | {"min_driver": "550.54.14"}
    newer = read_catalogue(json.dumps(content([result])), "here")
    resolved = match_images(newer, matrix(), variants(), [card("Tesla T4")], parse_driver("535.104"))
    assert resolved.matches == ()
    assert [one.why for one in resolved.passed_over] == ["it needs driver 550.54.14, here is 535.104"]


def test_cards_without_a_common_image_get_one_each() -> None:
    names = (SM75, "cu128-vllm0.11.0-flash-attn-sm89")
    assert sorted(found(names, ["RTX 2080 Ti", "RTX 4090"])) == sorted(names)


def test_why_the_others_lost() -> None:
    family = "cu124-vllm0.8.5.post1-xformers-sm70_75"
    resolved = match_images(catalogue(SM75, SM75_SDPA, family, CPU), matrix(), variants(), [card("RTX 2080 Ti")])
    assert {one.image.variant: one.why for one in resolved.passed_over} == {
        SM75_SDPA: f"{SM75} is recommended before it",
        family: "it carries code of other cards as well",
    }


def test_a_variant_that_this_checkout_does_not_know_is_left_out() -> None:
    stranger = fields(variants().valid[SM75])
    stranger |= {"variant": "cu999-x-sm75", "tag": immutable_tag("cu999-x-sm75", stranger["input"])}
    strange = read_catalogue(json.dumps(content([stranger])), "here")
    resolved = match_images(strange, matrix(), variants(), [card("RTX 2080 Ti")])
    assert resolved.matches == ()
    assert [one.why for one in resolved.passed_over] == ["its variant is not in this checkout's matrix"]


def test_an_image_by_name() -> None:
    whole = catalogue(SM75, CPU)
    assert image_by_name(whole, CPU).variant == CPU
    assert image_by_name(whole, image(CPU).tag).variant == CPU
    with pytest.raises(NothingSelected, match="nothing is published as 'cpu'"):
        image_by_name(whole, "cpu")


def test_with_everything_published_every_card_gets_what_the_golden_table_says() -> None:
    whole, cards = catalogue(), {one.name: one for one in all_cards()}
    lines = [line.split("\t") for line in PATH.read_text(encoding="utf-8").splitlines()[1:]]
    wrong = []
    listed = set[str]()
    for name, _, _, image_id, oldest, reason in lines:
        # Behind a card's first row are those for older drivers, each from its oldest on.
        driver = parse_driver(oldest) if name in listed else None
        listed.add(name)
        resolved = match_images(whole, matrix(), variants(), [cards[name]], driver)
        had = resolved.matches[0].image.variant if resolved.matches else "-"
        why = resolved.refusals[0].why if resolved.refusals else None
        if had != image_id or (why is not None and not reason.startswith(why.cause[:40])):
            wrong.append(f"{name}: {had}, {why}")
    assert len(lines) > len(listed) > 490
    assert wrong == []


def test_with_nothing_published_for_it_the_refusal_says_what_to_build() -> None:
    for name in ("RTX 2080 Ti", "Tesla V100 PCIe 16 GB", "L4", "H100 PCIe", "RTX 5090"):
        resolved = match_images(catalogue(CPU), matrix(), variants(), [card(name)])
        assert resolved.matches == ()
        assert "./inv build --only" in resolved.refusals[0].why.do
