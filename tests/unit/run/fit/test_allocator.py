"""What torch's allocator takes for tensors, by the rules of its source; whole models are held against logs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from images.run.fit.allocator import TorchMemory
from images.run.fit.loaded import loaded_bytes, rotary_table
from images.run.fit.weights import linear_tensors, stage_weights, vision_weights
from tests.helpers.fits import model

MIB = 2**20


@pytest.mark.parametrize(
    ("size", "taken"),
    [
        (1, 512),
        (513, 1024),
        (MIB, MIB),
        # From a segment of 20 MiB, whose rest is given back.
        (5 * MIB, 5 * MIB),
        # Segments of their own are whole steps of 2 MiB; a rest of more than 1 MiB is given back, a smaller one not.
        (231 * MIB, 232 * MIB),
        (115 * MIB + MIB // 2, 116 * MIB),
        (24 * MIB + MIB // 2, 24 * MIB + MIB // 2),
        (40 * MIB, 40 * MIB),
    ],
)
def test_one_tensor(size: int, taken: int) -> None:
    memory = TorchMemory()
    assert memory.take(size) == taken == memory.live


def test_rests_are_used_before_new_segments_and_small_ones_stay_with_the_last() -> None:
    memory = TorchMemory()
    memory.take_all([6 * MIB, 6 * MIB, 7 * MIB])
    # The third leaves 1 MiB of the 20, which is not given back.
    assert memory.live == 20 * MIB


def test_what_is_freed_is_taken_again() -> None:
    memory = TorchMemory()
    block = memory.take(250 * MIB)
    memory.give(block)
    assert memory.live == 0
    assert memory.take(231 * MIB) == 231 * MIB
    # 19 MiB of the old one are left: enough for this one, without a step.
    assert memory.take(18 * MIB + MIB // 2) == 19 * MIB


@pytest.mark.parametrize("name", ["3b", "7b", "7b-awq", "32b-awq", "qwen2-vl-7b", "qwen3-vl-8b", "7b-fp8"])
@pytest.mark.parametrize("tp", [1, 2])
def test_loading_takes_the_weights_the_table_and_a_little_more(name: str, tp: int) -> None:
    one = model(name)
    weights = stage_weights(one, (one.shape.layers,), 0, tp) + vision_weights(one, tp)
    more = loaded_bytes(one, (one.shape.layers,), 0, tp, tp) - weights - rotary_table(one)
    assert 0 < more < 0.03 * weights


def test_stages_load_their_own_layers() -> None:
    one = model("7b")
    parts = (14, 14)
    whole = loaded_bytes(one, (28,), 0, 1, 1)
    halves = [loaded_bytes(one, parts, at, 1, 1) for at in (0, 1)]
    twice = vision_weights(one, 1) + rotary_table(one)
    assert 0 <= sum(halves) - whole - twice < 32 * MIB


def test_an_order_of_its_own_needs_the_scales_of_all_cards() -> None:
    one = replace(model("72b-gptq"), group=32)
    plain = linear_tensors(one, 7392, 8192, whole=29568)
    ordered = linear_tensors(replace(one, act_order=True), 7392, 8192, whole=29568)
    assert (plain[1], ordered[1]) == (231 * 8192 * 2, 924 * 8192 * 2)
    assert linear_tensors(replace(one, act_order=True), 8192, 14784)[1] == 256 * 14784 * 2
