"""Budgets of images: every recommended one has exactly one, and what is wrong with a row is told with its line."""

from __future__ import annotations

import pytest

from images.core.errors import UsageError
from images.matrix.recommended import recommendations
from images.matrix.sizes import budget_of, check_sizes, ids_with_budget
from tests.helpers.matrices import edited, line_of, matrix, text, variants
from tests.helpers.nonempty import nonempty

ROW = text()[text().index("  - {id: cpu, images:") :].splitlines()[0]


def refused(old: str, new: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        edited((old, new))
    assert caught.value.exit_code == 2
    return caught.value


def test_every_recommended_image_and_the_cpus_has_a_budget() -> None:
    wanted = ids_with_budget(matrix())
    assert {one.variant.id for one in recommendations(matrix(), variants())} <= set(wanted)
    cpus = [name for name, variant in variants().valid.items() if variant.cuda is None]
    assert set(cpus) <= set(wanted)
    assert len(wanted) == len(set(wanted)) == len([one for one in wanted if one in variants().valid])
    for one in nonempty(wanted):
        budget = budget_of(matrix(), one)
        assert budget is not None
        assert budget.zstd < budget.unpacked


def test_an_image_for_many_cards_has_no_budget() -> None:
    many = [variant.id for variant in variants().valid.values() if len(variant.archs) > 1]
    assert {budget_of(matrix(), one) for one in nonempty(many)} == {None}


def test_a_recommended_image_without_a_budget_is_named() -> None:
    error = refused(ROW + "\n", "")
    assert "sizes: cpu-vllm" in error.what
    assert "has no budget" in error.what
    assert "./inv weigh" in error.do
    assert error.where == f"matrix.yaml:{line_of('sizes:', 'gaps:')}"


def test_a_glob_that_is_for_none_names_the_nearest() -> None:
    error = refused('images: ["cpu-*"]', 'images: ["cpu-*", "cpu-vlm*"]')
    assert "'cpu-vlm*' is for no recommended image" in error.what
    assert "nearest: cpu-vllm" in error.do
    assert error.where == f"matrix.yaml:{line_of(ROW)}"


def test_two_budgets_of_one_image_are_refused_by_their_names() -> None:
    second = ROW.replace("id: cpu", "id: cpu-again")
    error = refused(ROW, f"{ROW}\n{second}")
    assert "has two budgets: cpu and cpu-again" in error.what
    assert error.where == f"matrix.yaml:{line_of(ROW) + 1}"


@pytest.mark.parametrize("wrong", ["zstd: 0", "zstd: -5", "zstd: 1e3", "zstd: '900'", "zstd: 1000000"])
def test_a_budget_is_a_number_of_megabytes(wrong: str) -> None:
    number = ROW[ROW.index("zstd:") :].split(",")[0]
    error = refused(ROW, ROW.replace(number, wrong))
    assert error.what.startswith("matrix.yaml: sizes.")


def test_a_row_needs_images() -> None:
    assert "sizes." in refused('images: ["cpu-*"]', "images: []").what
    assert "sizes." in refused('images: ["cpu-*"]', 'images: ["cpu $(x)"]').what


def test_the_check_is_of_the_whole_file() -> None:
    check_sizes(matrix())
    assert len(matrix().sizes) > 3
