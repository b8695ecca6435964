"""plan and explain ask one judge: what the one refuses, the other gives the reason of."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.core.errors import NoImageFits, NothingSelected, UsageError
from images.matrix.arch import KNOWN_ARCHS, parse_arch
from images.matrix.judged import Judged, covering_list, judge_selection
from images.matrix.model import ATTENTIONS
from images.matrix.selection import explain, select
from images.matrix.selectors import Selectors, read_selectors
from tests.helpers.matrices import matrix, variants
from tests.helpers.nonempty import nonempty

CUDA = (None, "11.8", "12.1", "12.4", "12.6", "12.8", "12.9", "13.0")
DRIVERS = (None, "440", "450", "525.60.13", "535", "570.26", "580", "595")
LISTS = [*KNOWN_ARCHS, "6.0 6.1", "7.0 7.5", "7.5 8.9", "8.0 8.6 8.9", "6.1 7.5", "7.0 12.0", "8.6 8.7", "12.0 12.1"]


def agrees(wanted: Selectors) -> Judged:
    """What `select` and `explain` say of the same words, held against each other and against every point."""
    judged = judge_selection(matrix(), variants(), wanted)
    assert explain(matrix(), variants(), wanted) == judged.left_out
    try:
        chosen = select(matrix(), variants(), wanted)
    except (NoImageFits, NothingSelected) as error:
        reasons = {rule.id: rule.reason for one in judged.left_out for rule in one.rules}
        named = re.search(r"excluded by the rule (\S+)", error.what)
        if named:  # the reason that plan gives is one that explain gives
            assert error.cause in [rule.reason for one in judged.left_out for rule in one.rules if rule.id == named[1]]
        elif "driver" in error.what:
            assert {"driver-too-old", "driver-does-not-serve-it"} & reasons.keys()
        else:
            assert not judged.left_out
        return judged
    assert chosen
    assert not {v.id for v in chosen} & {one.id for one in judged.left_out}
    return judged


def exactly(wanted: Selectors) -> None:
    """Each point of the cards' own list is an image that `--all` takes, or is left out with a reason; never both."""
    (asked,) = wanted.archs
    archs = covering_list(matrix(), asked)
    judged = agrees(wanted)
    stacks = [(name, s.cuda) for name, s in matrix().stacks.items() if s.cuda and wanted.cuda in (None, s.cuda)]
    spoken = {
        (name, attention)
        for (name, _), attention in product(stacks, ATTENTIONS)
        if wanted.attention in (None, attention)
    }
    points = [one.point for one in judged.left_out]
    out = {(p.stack, p.attention) for p in points if p.archs == asked or {*archs} <= {*p.archs}}
    taken = {(one.stack, one.attention) for one in judged.chosen if {*archs} <= {*one.archs}}
    assert taken | out == spoken
    for one in judged.left_out:
        assert one.rules
        assert all(rule.reason and rule.source for rule in one.rules)


@pytest.mark.parametrize("archs", LISTS)
def test_plan_and_explain_agree_on_every_point_of_every_card(archs: str) -> None:
    exactly(read_selectors(matrix(), [archs], every=True))
    for cuda, attention in nonempty(list(product(CUDA[1:], ATTENTIONS))):
        exactly(read_selectors(matrix(), [archs], cuda, attention, every=True))


@pytest.mark.parametrize("driver", DRIVERS[1:])
def test_plan_and_explain_agree_on_every_driver(driver: str) -> None:
    for archs in nonempty(LISTS):
        exactly(read_selectors(matrix(), [archs], every=True, driver=driver))
        agrees(read_selectors(matrix(), [archs], driver=driver))


WORDS = st.fixed_dictionaries(
    {
        "archs": st.lists(st.sampled_from(LISTS), max_size=2),
        "cuda": st.sampled_from(CUDA),
        "attention": st.sampled_from((None, *ATTENTIONS)),
        "only": st.lists(st.sampled_from(["cu1*", "*sm75", "*xformers*", "cpu*", "*-sm6*", "nothing*"]), max_size=2),
        "every": st.booleans(),
        "driver": st.sampled_from(DRIVERS),
    }
)


@settings(max_examples=100, deadline=None)
@given(WORDS)
def test_plan_and_explain_agree_on_any_words(words: dict[str, object]) -> None:
    agrees(read_selectors(matrix(), **words))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "  ", ",", " , "])
def test_an_arch_without_a_number_is_a_wrong_word(text: str) -> None:
    with pytest.raises(UsageError, match="names no compute capability"):
        read_selectors(matrix(), [text])


@pytest.mark.parametrize("arch", ["6.0", "6.1"])
def test_pascal_is_served_on_transformers_and_by_nothing_else(arch: str) -> None:
    all_of_them = select(matrix(), variants(), read_selectors(matrix(), [arch], every=True))
    assert {one.backend for one in all_of_them} == {"transformers"}
    assert {one.attention for one in all_of_them} == {"sdpa"}
    number = parse_arch(arch).number
    (chosen,) = select(matrix(), variants(), read_selectors(matrix(), [arch]))
    assert chosen.id == f"cu124-transformers5.24.0-sdpa-sm{number}"
    assert chosen.args == ("--dtype", "float16")
    assert "pascal-by-transformers" in [note.id for note in chosen.notes]
    with pytest.raises(NoImageFits, match="pascal-not-in-vllm") as caught:
        select(matrix(), variants(), read_selectors(matrix(), [arch], attention="triton"))
    assert chosen.id in caught.value.do


def test_a_card_is_served_where_a_toolkit_compiles_for_code_that_it_runs() -> None:
    (one,) = select(matrix(), variants(), read_selectors(matrix(), ["12.1"], "12.8"))
    assert one.id == "cu128-vllm0.11.0-flash-attn-sm120"
    left_out = explain(matrix(), variants(), read_selectors(matrix(), ["12.1"], "12.8"))
    assert "toolkit-range" not in {rule.id for point in left_out for rule in point.rules}
    assert all(point.nearest == one.id for point in nonempty(left_out))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"archs": ["8.0"], "cuda": "12.9", "attention": "sdpa"}, "no-such-server-in-stack"),
        ({"only": ["cu130-vllm0.33.0-xformers-sm80"]}, "xformers-gone-from-vllm"),
        ({"cuda": "13.0", "attention": "xformers"}, "xformers-gone-from-vllm"),
        ({"driver": "440"}, "driver 440 is too old for every image that is selected"),
        ({"archs": ["5.2"], "cuda": "12.4", "attention": "sdpa"}, "maxwell-has-no-float16"),
    ],
)
def test_a_refusal_says_the_reason_that_is_so(words: dict[str, object], said: str) -> None:
    with pytest.raises(NoImageFits, match=said):
        select(matrix(), variants(), read_selectors(matrix(), **words))  # type: ignore[arg-type]


def test_words_for_other_cards_select_nothing() -> None:
    with pytest.raises(NothingSelected, match=r"\*sm80 for 7.5"):
        select(matrix(), variants(), read_selectors(matrix(), ["7.5"], only=["*sm80"]))
