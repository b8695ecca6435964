from __future__ import annotations

from collections.abc import Sequence

import pytest

from images.core.errors import NoImageFits, NothingSelected, UsageError
from images.matrix.selection import explain, select
from images.matrix.selectors import read_selectors
from tests.helpers.matrices import matrix, variants
from tests.helpers.nonempty import nonempty


def chosen(archs: Sequence[str] = (), **words: object) -> list[str]:
    wanted = read_selectors(matrix(), archs, **words)  # type: ignore[arg-type]
    return [v.id for v in select(matrix(), variants(), wanted)]


@pytest.mark.parametrize("arch", ["7.5", "75", "sm_75"])
def test_one_arch_gives_the_one_recommended_image(arch: str) -> None:
    assert chosen([arch]) == ["cu124-vllm0.8.5.post1-xformers-sm75"]


def test_each_arch_named_gives_its_own_image() -> None:
    assert chosen(["7.5", "8.6"]) == ["cu124-vllm0.8.5.post1-xformers-sm75", "cu130-vllm0.33.0-flash-attn-sm86"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("7.5 7.0", "cu124-vllm0.8.5.post1-xformers-sm70_75"),
        ("8.0,8.6,8.9", "cu130-vllm0.33.0-flash-attn-sm80_86_89"),
        (
            "7.5 9.0",
            "cu124-vllm0.8.5.post1-xformers-sm70_75_80_86_89_90",
        ),  # no list of just these: the smallest that has both
        ("12.1", "cu130-vllm0.33.0-flash-attn-sm120"),  # runs 12.0 code
        ("10.3", "cu130-vllm0.33.0-flash-attn-sm100"),
    ],
)
def test_lists_and_cards_without_a_list_of_their_own(asked: str, found: str) -> None:
    assert chosen([asked]) == [found]


def test_open_axes_take_the_recommended_value() -> None:
    assert chosen(["7.5"], attention="sdpa") == ["cu124-transformers5.24.0-sdpa-sm75"]
    assert chosen(["7.5"], cuda="12.1") == ["cu121-vllm0.7.3-xformers-sm75"]
    assert chosen(["8.6"], cuda="11.8") == ["cu118-vllm0.8.5.post1-xformers-sm86"]
    assert len(chosen()) == sum(map(len, matrix().recommended.archs.values()))
    assert len(chosen(driver="580")) == len(matrix().archs)


def test_all_widens_and_only_takes_globs() -> None:
    assert chosen(every=True) == list(variants().valid)
    assert set(chosen(["7.5"], every=True)) == {i for i, v in variants().valid.items() if "7.5" in map(str, v.archs)}
    assert chosen(only=["cpu*"]) == ["cpu-vllm0.32.0-sdpa"]
    assert chosen(["7.5"], only=["cu124-transformers*"])[0] == "cu124-transformers5.24.0-sdpa-sm75"


def test_flash_attn_on_turing_says_why_not_and_what_instead() -> None:
    with pytest.raises(NoImageFits) as caught:
        chosen(["7.5"], attention="flash-attn")
    error = caught.value
    assert error.exit_code == 4
    assert "flash-attn-needs-ampere" in error.what
    assert "8.0" in error.cause
    assert "cu124-vllm0.8.5.post1-xformers-sm75" in error.do
    assert "flash_api.cpp" in error.where


@pytest.mark.parametrize(
    ("asked", "said"),
    [("8.7", "Jetson"), ("7.2", "Jetson"), ("6.2", "Jetson"), ("5.2", "llama.cpp"), ("5.0", "llama.cpp")],
)
def test_cards_that_nothing_serves_get_a_reason_and_help(asked: str, said: str) -> None:
    with pytest.raises(NoImageFits) as caught:
        chosen([asked])
    assert said in caught.value.do


def test_volta_with_cuda_13_names_the_governing_rule() -> None:
    with pytest.raises(NoImageFits, match="volta-not-in-cuda13"):
        chosen(["7.0"], cuda="13.0")


def test_an_unknown_cuda_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        chosen(["7.5"], cuda="12.2")
    assert caught.value.exit_code == 2
    assert "nearest: 12.1" in caught.value.do


def test_an_unknown_attention_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="flash") as caught:
        chosen(attention="flashattn")
    assert "nearest: flash-attn" in caught.value.do


def test_a_glob_that_matches_nothing() -> None:
    with pytest.raises(NothingSelected) as caught:
        chosen(only=["cu124-vllm*-sdpa*"])
    assert caught.value.exit_code == 3
    assert "nearest id" in caught.value.do


def test_explain_covers_cards_that_are_no_point_of_the_matrix() -> None:
    found = explain(matrix(), variants(), read_selectors(matrix(), ["8.7"]))
    servers = [{rule.id for rule in e.rules} for e in found if e.rules[0].id != "no-such-server-in-stack"]
    assert all("jetson-needs-jetson-wheels" in rules for rules in nonempty(servers))


def test_explain_follows_the_selectors() -> None:
    found = explain(matrix(), variants(), read_selectors(matrix(), ["7.5"], attention="flash-attn"))
    assert {e.id for e in found} >= {"cu124-vllm0.8.5.post1-flash-attn-sm75", "cu118-vllm0.8.5.post1-flash-attn-sm75"}
    assert all(e.point.attention == "flash-attn" for e in found)
    assert len(explain(matrix(), variants(), read_selectors(matrix()))) == len(variants().excluded)
