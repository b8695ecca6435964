"""Ordered lists of recommendations: what may stand in one, and which of its images a driver gets."""

from __future__ import annotations

import pytest

from images.core.errors import UsageError
from images.matrix.recommended import recommended_variants
from tests.helpers.matrices import edited, line_of, matrix, variants

SM86 = '"8.6": [{stack: cu128, attention: flash-attn}]'


def refused(*entries: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        edited((SM86, f'"8.6": [{", ".join(entries)}]'))
    assert caught.value.exit_code == 2
    assert caught.value.where == f"matrix.yaml:{line_of(SM86)}"
    return caught.value


def test_every_entry_of_the_projects_matrix_is_a_variant() -> None:
    entries = [(str(arch), entry) for arch, entry, _ in recommended_variants(matrix(), variants())]
    assert entries == [(arch, entry) for arch, listed in matrix().recommended.archs.items() for entry in listed]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{stack: cu129, attention: flash-attn}", "there is no stack 'cu129'"),
        ("{stack: cu128, attention: flash}", "nearest: flash-attn"),
        ("{stack: cu128, attention: flash-attn, wy: faster}", "nearest: why"),
        ("{stack: cpu, attention: sdpa}", "cpu is no stack for cards"),
        ("{stack: cu130, attention: xformers}", "excluded by the rule xformers-gone-from-vllm"),
    ],
)
def test_an_entry_that_is_no_variant_says_what_could_stand_there(entry: str, said: str) -> None:
    assert said in str(refused(entry))


def test_an_entry_that_a_rule_excludes_names_the_rule_and_others() -> None:
    error = refused("{stack: cu130, attention: xformers}")
    assert "recommended.archs.8.6.0: cu130 with xformers" in error.what
    assert error.cause
    assert "cu130 with flash-attn" in error.do
    assert "xformers" not in error.do.split("cu126")[1]


def test_an_empty_list_is_refused() -> None:
    assert "8.6" in refused().what


def test_an_entry_stands_once() -> None:
    error = refused("{stack: cu128, attention: flash-attn}", "{stack: cu128, attention: flash-attn, why: again}")
    assert "recommended.archs.8.6.1: cu128 with flash-attn stands there twice" in error.what


@pytest.mark.parametrize("last", ["{stack: cu130, attention: flash-attn}", "{stack: cu126, attention: flash-attn}"])
def test_an_entry_behind_one_that_needs_no_newer_driver_is_never_reached(last: str) -> None:
    error = refused("{stack: cu128, attention: flash-attn}", last)
    assert "can never be reached" in error.what
    assert "cu128 before it runs from 525.60.13 on" in error.cause


def test_each_entry_needs_an_older_driver_than_those_before_it() -> None:
    stacks = ("cu130", "cu128", "cu118")
    made = edited((SM86, f'"8.6": [{", ".join(f"{{stack: {one}, attention: flash-attn}}" for one in stacks)}]'))
    assert [one.stack for one in made.recommended.archs["8.6"]] == list(stacks)
