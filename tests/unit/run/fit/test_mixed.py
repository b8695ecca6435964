"""Cards of several generations: what vLLM asks of card 0 alone is named, and a card too old is named and left out."""

from __future__ import annotations

import pytest

from images.cards.this_machine import LocalCard, LocalMachine
from images.core.errors import CardstockError, NoImageFits
from images.matrix.arch import Arch
from images.run.fit.choose import Fit
from images.run.fit.find import FitOptions, find_fit
from images.run.fit.settings import environment, server_flags, setting_choices
from tests.helpers.contexts import context, silent


def _found(*cards: str, model: str = "7b-awq", **more: object) -> Fit:
    options = FitOptions(model, cards, **more)  # type: ignore[arg-type]
    return find_fit(context(silent()[0], locked={}), options, LocalMachine(why="none"))


@pytest.mark.parametrize("model", ["7b-awq", "7b-gptq"])
@pytest.mark.parametrize("cards", [("3090", "2080 Ti"), ("2080 Ti", "3090"), ("4090", "T4", "T4", "4090")])
def test_the_kernel_of_the_oldest_is_named(model: str, cards: tuple[str, ...]) -> None:
    found = _found(*cards, model=model)
    flags = server_flags(found)
    kernel = model.partition("-")[2]
    assert flags[flags.index("--quantization") + 1] == kernel
    assert flags[flags.index("--dtype") + 1] == "half"
    assert environment(found)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    told = next(one for one in setting_choices(found) if one.name == "several kinds of cards")
    assert "vLLM asks card 0 alone" in told.why and f"--quantization {kernel}" in told.value
    assert not any("give no --quantization" in one.why for one in setting_choices(found))


@pytest.mark.parametrize(
    ("model", "cards"), [("7b-awq", ("3090", "4090")), ("7b", ("3090", "2080 Ti")), ("7b-awq", ("3090", "3090"))]
)
def test_where_all_take_the_same_kernel_none_is_named(model: str, cards: tuple[str, ...]) -> None:
    found = _found(*cards, model=model)
    assert "--quantization" not in server_flags(found)
    assert ("CUDA_DEVICE_ORDER" in environment(found)) == (cards[0] != cards[1])


@pytest.mark.parametrize("old", ["GTX 1080", "Tesla P40", "GTX 970", "MX450", "GTX 780"])
def test_a_card_without_an_image_is_named_and_left_out(old: str) -> None:
    with pytest.raises(NoImageFits) as refused:
        _found("3090", old, "3090")
    assert "--gpus device=0,2" in refused.value.do and f"leave out GeForce {old}".replace("GeForce T", "T") in (
        refused.value.do.replace("GeForce GeForce", "GeForce")
    )
    assert _found("3090", old, "3090", gpus="device=0,2").ask.count == 2


def test_of_this_machine_too() -> None:
    old = LocalCard("NVIDIA GeForce GTX 1080", "GPU-0", Arch(6, 1), 8 * 2**30)
    good = [LocalCard("NVIDIA GeForce RTX 3090", f"GPU-{at}", Arch(8, 6), 24 * 2**30) for at in (1, 2)]
    machine = LocalMachine("570.86.10", "12.8", (old, *good))
    with pytest.raises(NoImageFits) as refused:
        find_fit(context(silent()[0], locked={}), FitOptions("7b"), machine)
    assert "leave out NVIDIA GeForce GTX 1080: --gpus device=1,2" in refused.value.do
    found = find_fit(context(silent()[0], locked={}), FitOptions("7b", gpus="device=1,2"), machine)
    assert (found.ask.count, found.ask.on.devices) == (2, ("1", "2"))
    for words in (FitOptions("7b", count=4), FitOptions("7b", gpus="9")):
        with pytest.raises(CardstockError, match="this machine has 3 cards"):
            find_fit(context(silent()[0], locked={}), words, machine)


def test_cards_that_no_image_serves_together_are_served_by_kind() -> None:
    with pytest.raises(NoImageFits, match="no image serves these cards together") as refused:
        _found("T4", "B200", "T4", model="7b")
    assert "--gpus device=0,2" in refused.value.do and "--gpus device=1" in refused.value.do
    assert _found("T4", "B200", "T4", model="7b", gpus="device=0,2").ask.count == 2


def test_the_least_memory_decides_and_is_named() -> None:
    with pytest.raises(NoImageFits) as refused:
        _found("3090", "RTX 3050 4GB", model="7b")
    assert "the least of them decides, GeForce RTX 3050 4 GB" in refused.value.cause


def test_after_a_split_that_was_asked_for_nothing_is_said_of_others() -> None:
    whole = " ".join(one.why for one in setting_choices(_found("3090", model="7b", count=2, tp=1)))
    assert "--tp asks for it" in whole and "leaves less" not in whole and "does not:" not in whole


@pytest.mark.parametrize(("model", "advised"), [("72b", True), ("72b-awq", False), ("72b-gptq", False)])
def test_four_bits_are_advised_where_there_are_more(model: str, advised: bool) -> None:
    with pytest.raises(NoImageFits, match="does not fit") as refused:
        _found("3090", model=model)
    assert ("a form in 4 bits" in refused.value.do) == advised


@pytest.mark.parametrize(
    "words", [{"count": 2, "gpus": "4"}, {"gpus": "none"}, {"count": -1}, {"nodes": 0}, {"gpus": "99999999"}]
)
def test_numbers_that_cannot_be(words: dict[str, object]) -> None:
    with pytest.raises(CardstockError) as refused:
        _found("3090", model="7b", **words)
    assert refused.value.exit_code == 2 and refused.value.do


@pytest.mark.parametrize(
    ("cards", "order"), [(("4090", "3090"), "1,0"), (("3090", "4090"), None), (("4090", "3090", "4090"), "1,0,2")]
)
def test_where_no_kernel_can_be_named_the_oldest_is_put_first(cards: tuple[str, ...], order: str | None) -> None:
    found = _found(*cards, model="7b-fp8")
    assert found.backend.kernel == "fp8_marlin"
    assert environment(found).get("CUDA_VISIBLE_DEVICES") == order
    assert environment(found)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
