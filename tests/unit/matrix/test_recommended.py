"""Ordered lists of recommendations: what may stand in one, and what is told of them."""

from __future__ import annotations

import pytest

from images.core.errors import UsageError
from images.matrix.by_driver import for_older_drivers, recommended_for
from images.matrix.model import Matrix
from images.matrix.recommended import recommendations
from images.matrix.selection import select
from images.matrix.selectors import Selectors, read_selectors
from images.matrix.variant_table import recommended_lines
from images.matrix.variants import Variants, make_variants
from tests.helpers.matrices import matrix, text_with_lists, variants, with_lists
from tests.helpers.nonempty import nonempty

THREE = ("cu130 flash-attn the fastest", "cu128 flash-attn", "cu118 flash-attn")


@pytest.fixture(scope="module")
def listed() -> Matrix:
    return with_lists(sm86=THREE)


@pytest.fixture(scope="module")
def made(listed: Matrix) -> Variants:
    return make_variants(listed)


def refused(*entries: str) -> UsageError:
    """The error of such a list for 8.6; it names the line of one of its entries."""
    with pytest.raises(UsageError) as caught:
        with_lists(sm86=entries)
    assert caught.value.exit_code == 2
    lines = text_with_lists(sm86=entries).splitlines()
    start, end = (next(at for at, line in enumerate(lines, 1) if f"'{arch}':" in line) for arch in ("8.6", "8.9"))
    assert start <= int(caught.value.where.removeprefix("matrix.yaml:")) < end
    return caught.value


# -- what may stand in a list


def test_every_entry_of_the_projects_matrix_is_a_variant() -> None:
    entries = {arch: len(listed) for arch, listed in matrix().recommended.archs.items()}
    found = [one.arch.capability for one in recommendations(matrix(), variants())]
    assert {arch: found.count(arch) for arch in nonempty(found)} == entries


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("cu999 flash-attn", "there is no stack 'cu999'"),
        ("cu128 flash", "nearest: flash-attn"),
        ("cpu sdpa", "cpu is no stack for cards"),
        ("cu130 xformers", "excluded by the rule xformers-gone-from-vllm"),
    ],
)
def test_an_entry_that_is_no_variant(entry: str, said: str) -> None:
    assert said in str(refused(entry))


def test_an_unknown_key_names_the_nearest() -> None:
    from images.matrix.reader import parse_matrix

    with pytest.raises(UsageError) as caught:
        parse_matrix(text_with_lists(sm86=["cu128 flash-attn faster"]).replace("why: faster", "wy: faster"))
    assert "unknown key 'wy'" in caught.value.what
    assert "nearest: why" in caught.value.do


def test_an_entry_that_a_rule_excludes_names_the_reason_and_what_could_stand_there() -> None:
    error = refused("cu130 xformers")
    assert "recommended.archs.8.6.0: cu130 with xformers" in error.what
    assert error.cause
    assert "cu130 with flash-attn" in error.do
    assert "cu130 with xformers" not in error.do


def test_an_empty_list_is_refused() -> None:
    assert "8.6" in refused().what


def test_an_entry_stands_once() -> None:
    error = refused("cu128 flash-attn", "cu128 flash-attn again")
    assert "recommended.archs.8.6.1: cu128 with flash-attn stands there twice" in error.what


@pytest.mark.parametrize("last", ["cu130 flash-attn", "cu126 flash-attn", "cu128 sdpa"])
def test_an_entry_behind_one_that_needs_no_newer_driver_is_never_reached(last: str) -> None:
    error = refused("cu128 flash-attn", last)
    assert "recommended.archs.8.6.1" in error.what
    assert "can never be reached" in error.what
    assert "cu128 before it runs from 525.60.13 on" in error.cause


# -- what is told of them


def ids(made: Variants, *stacks: str) -> list[str]:
    """The ids of these stacks' variants with FlashAttention for 8.6 alone."""
    by_stack = {v.stack: v.id for v in made.valid.values() if v.id.endswith("-flash-attn-sm86")}
    return [by_stack[stack] for stack in stacks]


def test_without_archs_every_entry_is_recommended(listed: Matrix, made: Variants) -> None:
    found = [v.id for v in select(listed, made, Selectors())]
    assert set(ids(made, "cu130", "cu128", "cu118")) <= set(found)
    with_driver = [v.id for v in select(listed, made, read_selectors(listed, driver="535"))]
    assert [name for name in with_driver if name.endswith("-sm86")] == ids(made, "cu128")


def test_what_older_drivers_get_is_told_in_the_lists_order(listed: Matrix, made: Variants) -> None:
    first, second, third = (made.valid[name] for name in ids(made, "cu130", "cu128", "cu118"))
    wanted = read_selectors(listed, ["8.6"])
    assert for_older_drivers(listed, made, wanted, first) == [second, third]
    assert for_older_drivers(listed, made, wanted, second) == [third]
    assert for_older_drivers(listed, made, wanted, third) == []
    assert for_older_drivers(listed, made, read_selectors(listed, ["8.6"], cuda="13.0"), first) == []


def test_reasons_are_told_arch_by_arch(listed: Matrix, made: Variants) -> None:
    first, second, third = ids(made, "cu130", "cu128", "cu118")
    assert recommended_lines(recommended_for(listed, made, read_selectors(listed, ["8.6"]))) == [
        "recommended for 8.6: the first that the driver runs",
        f"  1. {first}, driver from 580.65.06",
        "     why: the fastest",
        f"  2. {second}, driver from 525.60.13",
        f"  3. {third}, driver from 450.80.02",
    ]
    told = recommended_for(listed, made, Selectors())
    assert [one.arch.capability for one in told if one.place == 1] == listed.archs
    assert recommended_for(listed, made, read_selectors(listed, ["8.6"], attention="sdpa")) == []
    stand_in = recommended_for(listed, made, read_selectors(listed, ["12.1"]))
    assert [one.arch.capability for one in stand_in if one.place == 1] == ["12.0"]
