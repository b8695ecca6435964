"""What the page says that cards serve: fit's own answer."""

from __future__ import annotations

from images.run.catalogue_page.decisions import Texts
from images.run.catalogue_page.fits import answer, fits_of, kinds, official_models
from images.run.fit import FitOptions, find_fit
from tests.helpers.catalogue_pages import some_cards
from tests.helpers.contexts import context
from tests.helpers.matrices import variants
from tests.helpers.nonempty import nonempty

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"


def test_the_models_are_those_that_qwen_publishes() -> None:
    names = {model.name: model.source for model in official_models()}
    assert names["7b-awq"] == "Qwen/Qwen2.5-VL-7B-Instruct-AWQ"
    assert names["qwen3-vl-8b-fp8"] == "Qwen/Qwen3-VL-8B-Instruct-FP8"
    assert "7b-gptq" not in names
    assert all(nonempty(names.values()))


def test_an_answer_is_fits() -> None:
    (card,), variant = some_cards("T4"), variants().valid[SM75]
    compared = 0
    for model in nonempty(official_models()):
        count, *said = answer(model, card, variant)
        if not count:
            continue
        found = find_fit(context(), FitOptions(model=model.name, cards=["T4"], variant=SM75, count=count))
        assert said == [found.load.length, found.load.seqs]
        compared += 1
    assert compared >= 8


def test_what_does_not_fit_is_told_by_fits_cause() -> None:
    (card,), variant = some_cards("T4"), variants().valid[SM75]
    models = {model.name: model for model in official_models()}
    assert answer(models["qwen3-vl-8b"], card, variant) == (
        0,
        "it has vLLM 0.8.5.post1, and Qwen3-VL needs 0.11 or newer",
    )
    count, *_ = answer(models["32b-awq"], card, variant)
    assert count == 2


def test_cards_that_differ_in_name_alone_are_summed_once() -> None:
    cards = some_cards("T4", "Quadro RTX 5000", "RTX 4090")
    assert len(kinds(cards)) == 2
    texts = Texts()
    assert len(fits_of(cards[0], variants().valid[SM75], texts)) == len(official_models())
