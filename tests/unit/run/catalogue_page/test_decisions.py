"""Tables of decisions: a driver for each step, sentences with marks, names."""

from __future__ import annotations

import pytest

from images.cards import match_card, plain_name
from images.matrix import parse_driver
from images.run.catalogue_page.decisions import (
    CARD,
    DRIVER,
    NAME,
    Texts,
    Why,
    decider,
    driver_steps,
    drivers_of_steps,
    own_refusal,
    spellings,
    tables,
    unknown_card,
    unknown_driver,
)
from tests.helpers.catalogue_pages import HOSTILE, some_cards
from tests.helpers.catalogues import catalogue
from tests.helpers.matrices import matrix, variants
from tests.helpers.nonempty import nonempty


def test_there_is_a_driver_for_each_step() -> None:
    steps = driver_steps(variants(), None)
    assert (580, 65, 6) in steps  # the oldest for CUDA 13
    assert (581,) in steps  # the first that leaves out Volta
    first, *found = drivers_of_steps(steps)
    assert first.parts < steps[0]
    for driver, step, after in zip(nonempty(found), steps, [*steps[1:], (1000,)], strict=True):
        assert step <= (*driver.parts, 999) < after
        assert str(driver) == DRIVER


def test_a_step_that_is_too_short_is_an_error() -> None:
    with pytest.raises(ValueError, match="no driver of two numbers"):
        drivers_of_steps([(525, 60, 13), (525, 60, 14)])


def test_what_a_catalogue_asks_of_drivers_is_a_step_too() -> None:
    found = catalogue("cu124-vllm0.8.5.post1-xformers-sm75")
    (image,) = found.images
    moved = found.model_copy(update={"images": (image.model_copy(update={"min_driver": "530.41.03"}),)})
    assert (530, 41, 3) in driver_steps(variants(), moved)


def test_a_table_has_every_set_of_capabilities() -> None:
    cards, texts = some_cards("T4", "RTX 4090", "H100", "A100"), Texts()
    found = tables(decider(matrix(), variants(), None), cards, [(525, 60, 13)], texts)
    assert found["archs"] == ["7.5", "8.0", "8.9", "9.0"]
    rows = found["sets"][found["given"][0]]
    assert len(rows) == 4 + 6 + 4  # one, two and three of them
    ((variant, places, _),) = texts.values[rows["0"]]
    assert (variant, places) == ("cu124-vllm0.8.5.post1-xformers-sm75", (0,))


def test_sentences_have_marks_for_names() -> None:
    cards, texts = some_cards("T4"), Texts()
    found = tables(decider(matrix(), variants(), None), cards, driver_steps(variants(), None), texts)
    oldest = texts.values[found["refused"][0][1]]
    assert oldest.what == f"driver {DRIVER} does not know {CARD}"
    assert found["refused"][0][0] == -1


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Tesla K80", f"no image for {CARD}: it has compute capability 3.7"),
        ("GeForce GTX 1630", ""),
        ("GeForce MX110", f"no image for {CARD}: 2 GB of memory are too little"),
    ],
)
def test_a_card_that_is_refused_by_itself(name: str, what: str) -> None:
    (card,), texts = some_cards(name), Texts()
    place = own_refusal(card, texts)
    assert (texts.values[place].what if place >= 0 else "") == what


def test_what_is_said_of_an_unknown_name_and_driver() -> None:
    assert unknown_card().what == f"no NVIDIA card is called {NAME}"
    assert unknown_driver().what == f"{NAME} is not a driver version"


def test_names_lead_where_pull_leads_them() -> None:
    cards = some_cards("T4", "RTX 4090", "A100 PCIe 80 GB")
    found = spellings((*cards, HOSTILE))
    for text, place in nonempty(found.items()):
        if isinstance(place, int) and place < len(cards):
            assert match_card(text, cards).card == cards[place]
    assert found["a100"] == 2
    assert found[plain_name(HOSTILE.name)] == 3


def test_a_name_of_several_kinds_is_told_so() -> None:
    found = spellings(some_cards("RTX 2000 Ada Generation"))
    assert isinstance(found["rtx 2000"], Why)
    assert found["rtx 2000"].what == f"{NAME} may be cards of different compute capabilities"


@pytest.mark.parametrize(
    ("text", "cause"),
    [("rx 7900 xtx", "AMD makes it"), ("m4 max", "Apple makes it"), ("cpu", "it is no card; the image for the CPU")],
)
def test_what_is_no_card_of_nvidias_is_told_so(text: str, cause: str) -> None:
    found = spellings(some_cards("T4"))[text]
    assert isinstance(found, Why)
    assert NAME in found.what
    assert found.cause.startswith(cause)


def test_each_value_is_kept_once() -> None:
    texts = Texts()
    assert [texts.place(value) for value in ("a", "b", "a")] == [0, 1, 0]
    assert texts.values == ["a", "b"]


def test_a_driver_that_stands_in_is_read_as_any() -> None:
    assert plain_name("NVIDIA A100-SXM4-80GB") == "a100 sxm4 80gb"
    assert parse_driver("525.60").parts in {driver.parts for driver in drivers_of_steps([(525, 60, 13)])}
