"""Drivers: versions, what CUDA they bring, and that images say the same to the container runtime."""

from __future__ import annotations

import re

import pytest

from images.core.errors import UsageError
from images.device_code.verdict import JIT, driver_for
from images.matrix.arch import Arch, parse_arch
from images.matrix.drivers import (
    driver_suffices,
    driver_supports,
    has_ptx,
    oldest_driver,
    parse_driver,
    runtime_accepts,
)
from images.proof.audit.table import PARTS, stacks_of
from images.proof.audit.wheels import FOLDER, read_records
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.nonempty import nonempty

# On both sides of every floor, and the branches that people have.
DRIVERS = (
    *("418.226.00", "440.33.01", "450.51.05", "450.80.02", "450.248.02", "460.106.00", "470.82.01", "470.256.02"),
    *("510.108.03", "515.105.01", "520.61.05", "525.53", "525.60.11", "525.60.13", "525.147.05", "530.30.02"),
    *("535.54.03", "535.104.05", "535.288.01", "545.23.06", "550.54.14", "555.42.02", "560.28.03", "565.57.01"),
    *("570.26", "570.211.01", "575.51.03", "580.65.05", "580.65.06", "580.126.09", "590.48.01"),
)


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("450.80.02", (11, 0)),
        ("470.82", (11, 4)),
        ("520.61.05", (11, 8)),
        ("535.104.05", (12, 2)),
        ("550.54.14", (12, 4)),
        ("570.26", (12, 8)),
        ("575.51.03", (12, 9)),
        ("580.65.06", (13, 0)),
        ("600.10", (13, 1)),  # newer than any known: at least what the newest known one brings
        ("352.99", (0, 0)),
    ],
)
def test_a_driver_brings_a_cuda_version(text: str, cuda: tuple[int, int]) -> None:
    assert parse_driver(text).cuda == cuda


@pytest.mark.parametrize("number", ["450.80.02", "525.60.13", "570.26", "580.65.06"])
def test_a_version_is_written_as_it_was_read(number: str) -> None:
    assert str(parse_driver(f" {number} ")) == number


@pytest.mark.parametrize("text", ["", "12.4", "R535", "535.", "535.104.05.1", "5351", "newest"])
def test_what_is_no_driver(text: str) -> None:
    with pytest.raises(UsageError, match="not a driver version"):
        parse_driver(text)


def test_versions_are_ordered_by_number_not_by_text() -> None:
    read = [parse_driver(text) for text in DRIVERS]
    assert sorted(read) == read
    assert parse_driver("525.105.17") > parse_driver("525.60.13")


@pytest.mark.parametrize(
    ("driver", "minimum", "expected"),
    [
        ("450.80.01", "450.80.02", False),
        ("450.80.02", "450.80.02", True),
        ("470.82.01", "525.60.13", False),
        ("525.60.11", "525.60.13", False),
        ("525.60.13", "525.60.13", True),
        ("525.105.17", "525.60.13", True),
        ("565.57.01", "570.26", False),
        ("570.26", "570.26", True),
        ("575.51.03", "580.65.06", False),
        ("580.65.05", "580.65.06", False),
        ("580.65.06", "580.65.06", True),
        ("525", "525.60.13", True),  # a branch stands for its newest driver
        ("535.104", "525.60.13", True),
        ("470", "525.60.13", False),
        ("418.226.00", None, True),
    ],
)
def test_the_floors(driver: str, minimum: str | None, expected: bool) -> None:
    assert driver_suffices(parse_driver(driver), minimum) is expected


def test_machine_code_needs_the_majors_driver_and_ptx_the_toolkits_own() -> None:
    floors = {cuda: str(oldest_driver(toolkit, ptx=False)) for cuda, toolkit in matrix().toolkits.items()}
    assert floors == {
        "11.8": "450.80.02",
        **dict.fromkeys(("12.1", "12.4", "12.6", "12.8", "12.9"), "525.60.13"),
        "13.0": "580.65.06",
    }
    own = {cuda: str(oldest_driver(toolkit, ptx=True)) for cuda, toolkit in matrix().toolkits.items()}
    assert own["12.4"] == "550.54.14"
    assert own["12.8"] == "570.26"


@pytest.mark.parametrize("cuda", ["11.8", "12.1", "12.4", "12.8", "13.0"])
def test_the_driver_of_a_toolkit_reports_its_cuda_version(cuda: str) -> None:
    driver = parse_driver(matrix().toolkits[cuda].driver)
    assert f"{driver.cuda[0]}.{driver.cuda[1]}" == cuda


def test_ptx_is_compiled_by_the_branch_that_brings_its_language() -> None:
    for ptx in [(7, 8), (8, 1), (8, 4), (8, 5), (8, 7), (9, 0)]:
        result = re.fullmatch(r"driver (\d+) \(CUDA (\d+)\.(\d+)\)", driver_for(ptx))
        assert result is not None
        assert parse_driver(result[1]).cuda == (int(result[2]), int(result[3]))


def test_every_variant_needs_the_driver_that_its_code_does() -> None:
    for variant in nonempty(one for one in variants().valid.values() if one.cuda):
        toolkit = matrix().toolkits[variant.cuda or ""]
        assert variant.min_driver == str(oldest_driver(toolkit, ptx=has_ptx(variant.archs))), variant.id


def test_the_container_runtime_is_told_the_same_for_every_variant() -> None:
    """NVIDIA_REQUIRE_CUDA knows CUDA versions only: it may let in an early driver of the very branch of the floor."""
    seen = set()
    for variant in variants().valid.values():
        for driver in map(parse_driver, DRIVERS):
            new_enough = driver_suffices(driver, variant.min_driver)
            let_in = runtime_accepts(driver, variant.require_cuda)
            if new_enough != let_in:
                assert variant.min_driver and let_in, (variant.id, str(driver))
                assert driver.branch == parse_driver(variant.min_driver).branch, (variant.id, str(driver))
            seen.add((new_enough, let_in))
    assert {(True, True), (False, False)} <= seen


def test_a_requirement_of_another_form_is_refused() -> None:
    assert runtime_accepts(parse_driver("450.80.02"), None)
    with pytest.raises(UsageError, match="not of the form"):
        runtime_accepts(parse_driver("535"), "driver>=535")


def test_flash_attention_comes_as_ptx_exactly_where_variants_say_so() -> None:
    """The kept audits of vLLM's wheels against the rule by which images get their driver."""
    part = next(one for one in PARTS if one.piece == "FlashAttention")
    wheels = {s: w for w in read_records(ROOT / FOLDER) if w.package == "vllm" for s in stacks_of(matrix(), w)}
    asked = 0
    for variant in variants().valid.values():
        if variant.attention == "flash-attn" and variant.stack in wheels:
            for arch in variant.archs:
                verdict = part.judge(wheels[variant.stack], (arch.major, arch.minor))
                assert (verdict.kind == JIT) == has_ptx([arch]), (variant.id, str(arch))
                asked += 1
    assert asked > 30


@pytest.mark.parametrize(
    ("driver", "card", "expected"),
    [
        ("580.126.09", (7, 0), True),
        ("590.48.01", (7, 0), False),  # the last branch for Volta is 580
        ("590.48.01", (6, 1), False),
        ("590.48.01", (7, 5), True),
        ("450.80.02", (8, 0), True),
        ("450.80.02", (8, 6), False),
        ("470.256.02", (8, 6), True),
        ("515.105.01", (8, 9), False),
        ("520.61.05", (8, 9), True),
        ("565.57.01", (12, 0), False),
        ("570.26", (12, 0), True),
        ("570.26", (10, 3), False),
        ("575.51.03", (10, 3), True),
    ],
)
def test_a_driver_serves_the_cards_of_its_time(driver: str, card: tuple[int, int], expected: bool) -> None:
    assert driver_supports(parse_driver(driver), Arch(*card)) is expected


def test_a_toolkit_that_compiles_for_a_card_comes_with_a_driver_that_knows_it() -> None:
    archs = [parse_arch(text) for text in matrix().archs]
    for toolkit in nonempty(matrix().toolkits.values()):
        low, high = (tuple(map(int, text.split("."))) for text in toolkit.sass)
        for arch in nonempty(arch for arch in archs if low <= (arch.major, arch.minor) <= high):
            assert driver_supports(parse_driver(toolkit.driver), arch), (toolkit.driver, str(arch))
