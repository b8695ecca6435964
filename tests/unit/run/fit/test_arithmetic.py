"""The sums of fit, against numbers worked out by hand from the published shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from packaging.version import Version

from images.run.fit.activations import Load, encoder_tokens
from images.run.fit.backends import backend_for
from images.run.fit.memory import CONTEXT, NCCL, SPARE, WORKSPACE, MemorySum, add_up
from images.run.fit.parallel import Split
from images.run.fit.usable_memory import GIB, sold_bytes, usable
from images.run.fit.weights import (
    decoder_layer,
    kv_bytes,
    layers_per_card,
    layers_per_stage,
    linear_bytes,
    stage_weights,
    vision_weights,
)
from tests.helpers.fits import SM75, SM86, ask, card, model

# Weights of one decoder layer: q and o are hidden squared, k and v hidden x kv heads x 128, the MLP 3 x hidden x width.
#  3B: 2 x 2048 x 2048 + 2 x 2048 x  256 + 3 x 2048 x 11008 =  8388608 + 1048576 +  67633152 =  77070336
#  7B: 2 x 3584 x 3584 + 2 x 3584 x  512 + 3 x 3584 x 18944 = 25690112 + 3670016 + 203685888 = 233046016


def test_a_decoder_layer_in_16_bits() -> None:
    # 7B; beside the weights the biases of q, k, v (3584 + 2 x 512) and two norms of 3584.
    assert decoder_layer(model("7b"), 1) == 2 * (233046016 + 4608 + 7168)


def test_a_decoder_layer_in_4_bits() -> None:
    # 3B; 4 bits, and for each group of 128 a scale of 16 and a zero of 4: 4.15625 bits = 0.51953125 bytes a weight.
    # Biases of q, k, v (2048 + 2 x 256) and two norms of 2048 stay in 16 bits.
    assert decoder_layer(model("3b-awq"), 1) == 77070336 * 0.51953125 + 2 * (2560 + 4096)


def test_gptq_keeps_the_group_of_each_input() -> None:
    assert linear_bytes(model("3b-gptq"), 2048, 256) == linear_bytes(model("3b-awq"), 2048, 256) + 4 * 2048


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # Sizes as published, compatibility facts section 7; bytes by hand for these two:
        # 7B: (28 x 233057792 + 2 x 152064 x 3584 + 3584 + 676550144 of vision) x 2
        ("7b", 2 * (28 * 233057792 + 2 * 544997376 + 3584 + 676550144)),
        # 3B-AWQ: 36 x 40053760 + (151936 x 2048 tied + 2048 + 668684288 of vision) x 2
        ("3b-awq", 36 * 40053760 + 2 * (311164928 + 2048 + 668684288)),
    ],
)
def test_all_weights(name: str, total: int) -> None:
    one = model(name)
    assert stage_weights(one, (one.shape.layers,), 0, 1) + vision_weights(one, 1) == total


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("3b", 7.51), ("7b", 16.58), ("32b", 66.9), ("72b", 146.8), ("3b-awq", 3.40), ("7b-awq", 6.92), ("32b-awq", 20.7)],
)
def test_sizes_are_the_published_ones(name: str, gigabytes: float) -> None:
    one = model(name)
    total = stage_weights(one, (one.shape.layers,), 0, 1) + vision_weights(one, 1)
    assert round(total / 1e9, 2 if gigabytes < 20 else 1) == gigabytes


def test_the_vision_tower_of_3b() -> None:
    # 32 blocks: qkv 1280 x 3840 + 3840, proj 1280 x 1280 + 1280, MLP 3 x 1280 x 3420 + 2 x 3420 + 1280, norms 2 x 1280
    block = 4915200 + 3840 + 1638400 + 1280 + 13132800 + 6840 + 1280 + 2560
    # Merger: norm 1280, 5120 x 5120 + 5120, 5120 x 2048 + 2048; patches 1176 x 1280.
    merger = 1280 + 26214400 + 5120 + 10485760 + 2048
    assert vision_weights(model("3b"), 1) == 2 * (32 * block + merger + 1505280)


def test_pipeline_stages_and_heads() -> None:
    assert layers_per_stage(28, 2) == (14, 14)
    assert layers_per_stage(28, 3) == (9, 10, 9)
    assert layers_per_stage(28, 3, rest_last=True) == (9, 9, 10)
    assert layers_per_card(28, 3) == (10, 10, 8)
    one = model("7b")
    # Over 4 cards, 14 layers: q and o 3584 x 896, k and v 3584 x 128, MLP 3 x 3584 x 4736; biases 896 + 2 x 128, norms.
    layer = 2 * 3584 * 896 + 2 * 3584 * 128 + 3 * 3584 * 4736 + 896 + 256 + 2 * 3584
    table = 152064 * 3584 // 4
    assert stage_weights(one, (14, 14), 0, 4) == 2 * (14 * layer + table)
    assert stage_weights(one, (14, 14), 1, 4) == 2 * (14 * layer + table + 3584)


def test_a_tied_head_is_a_table_of_its_own_on_another_card() -> None:
    one, table = model("3b"), 151936 * 2048 * 2
    alone = stage_weights(one, (36,), 0, 1)
    both = stage_weights(one, (18, 18), 0, 1) + stage_weights(one, (18, 18), 1, 1)
    assert both - alone == table


def test_the_cache_of_one_token() -> None:
    # 2 (key, value) x layers x kv heads x 128 x 2 bytes.
    assert kv_bytes(model("3b"), 36, 1) == 36864
    assert kv_bytes(model("72b"), 80, 1) == 327680
    assert kv_bytes(model("7b"), 14, 4) == 2 * 14 * 1 * 128 * 2
    assert kv_bytes(model("3b"), 36, 8) == kv_bytes(model("3b"), 36, 2)  # 2 heads: repeated beyond two cards


def test_what_a_card_has() -> None:
    assert sold_bytes(card("RTX 2080 Ti")) == 11 * GIB
    assert sold_bytes(card("Tesla T4")) == 15 * GIB  # one of 16 goes to error correction
    assert sold_bytes(card("L4")) == 22.5 * GIB
    assert sold_bytes(card("V100 32GB")) == 32 * GIB
    assert sold_bytes(card("GRID V100D-32Q")) == 30 * GIB - 16 * 2**20  # what the hypervisor keeps of a profile
    assert sold_bytes(card("NVIDIA A40-48Q")) == 42 * GIB - 16 * 2**20
    assert usable(11 * GIB) == 10.5 * GIB
    assert usable(80 * GIB) == 80 * GIB - int(1.6 * GIB)
    assert usable(GIB // 4) == 0


def _lines(total: MemorySum) -> dict[str, int]:
    return {line.name: line.bytes for line in total.lines}


def test_3b_awq_on_a_2080_ti_line_by_line() -> None:
    one = ask("3b-awq", "2080 Ti")
    engine = backend_for(one.model, one.variant, one.arch)
    total = add_up(one.model, engine, Split(1, 1), Load(32768), one.usable)
    found = _lines(total)
    assert found["text weights"] + found["vision weights"] == 3401637888
    # A whole prompt at once, for it is V0: 32768 x (3 x 11008 x 2 + 5 x 2048 x 2), the largest matrix unpacked
    # 2048 x 11008 x 2 x 2, sampling 151936 x 32.
    assert found["activations, text"] == 32768 * 86528 + 90177536 + 4861952 + WORKSPACE
    assert found["pictures, encoded"] == 1280 * 2048 * 2
    assert "NCCL" not in found and "CUDA graphs" not in found
    # Cosines and sines of 4 x 128000 positions, 128 numbers of 2 bytes; 5120 patches of 1176 numbers of 4.
    assert found["rotary table"] == 4 * 128000 * 128 * 2
    assert found["pictures, as they came"] == 5120 * 1176 * 4
    # 11 GiB less half: 11274289152. Of that 0.75 GiB are not vLLM's: 0.928, so 0.92 of it is. Left for the cache:
    # 10372346019 - 3401637888 - 2997497856 - 5242880 - 131072000 - 24084480, less what the allocator rounds; 36864 a
    # token, in blocks of 16.
    assert total.utilisation == 0.92
    assert found["key-value cache"] == 3812810915 - found["allocator's rounding"]
    assert total.tokens == found["key-value cache"] // 36864 // 16 * 16
    assert (total.missing, total.stage) == (0, 0)


def test_7b_on_a_3090_line_by_line() -> None:
    one = ask("7b", "RTX 3090")
    engine = backend_for(one.model, one.variant, one.arch)
    total = add_up(one.model, engine, Split(1, 1), Load(32768), one.usable)
    found = _lines(total)
    # V1 takes 2048 tokens a step. Two pictures of 1280 tokens reach that: 2560 tokens, 10240 patches of
    # 1280 x (8 x 2 + 16) + 1176 x 2 bytes; the decoder's 2048 x (3 x 18944 x 2 + 5 x 3584 x 2) + 152064 x 32 are less.
    assert found["activations, vision"] == 10240 * (40960 + 2352) + WORKSPACE
    assert found["pictures, as they came"] == 10240 * 1176 * 4
    assert found["step buffers"] == 3 * 2048 * 3584 * 2
    assert 10240 * 43312 > 2048 * (113664 + 35840) + 152064 * 32
    assert found["pictures, encoded"] == 2560 * 3584 * 2
    # 23.5 GiB, 0.95 of them (0.968, at most 0.95), less weights, the lines above and what the allocator rounds.
    left = int(0.95 * 23.5 * GIB) - 16584333312 - 10240 * 43312 - WORKSPACE - 18350080 - 131072000 - 48168960 - 44040192
    left -= found["allocator's rounding"]
    assert found["key-value cache"] == left
    assert total.tokens == left // 57344 // 16 * 16
    assert total.used <= total.usable


def test_a_split_costs_nccl_and_the_last_stage_samples() -> None:
    one = ask("7b", "RTX 2080", 8)
    engine = backend_for(one.model, one.variant, one.arch)
    total = add_up(one.model, engine, Split(4, 2), Load(32768), one.usable)
    found = _lines(total)
    assert found["NCCL"] == NCCL
    assert (found["CUDA context"], found["spare"]) == (CONTEXT, SPARE)
    # The last stage has the norm and the logits beside what the first has: it is the fullest.
    assert total.stage == 1
    assert found["activations, text"] == 32768 * (3 * 4736 * 2 + 5 * 3584 * 2) + 152064 * 32 + WORKSPACE


def test_what_the_vision_tower_is_given_at_once() -> None:
    old = backend_for(model("7b"), ask("7b", "T4").variant, card("T4").arch)
    new = backend_for(model("7b"), ask("7b", "RTX 3090").variant, card("RTX 3090").arch)
    plain = ask("7b", "T4", by="cu124-transformers5.24.0-sdpa-sm75")
    one_process = backend_for(plain.model, plain.variant, plain.arch)
    # V0: the pictures of as many requests as fit one prompt; 4 x 2 x 1280 fit 16384, of 4096 one request of 2560 does.
    assert encoder_tokens(old, Load(16384, seqs=4, images=2)) == 10240
    assert encoder_tokens(old, Load(4096, seqs=4, images=2)) == 2560
    # V1: as many pictures as reach a step.
    assert encoder_tokens(new, Load(16384, batched=8192)) == 7 * 1280
    assert encoder_tokens(new, Load(16384, images=8)) == 8 * 1280
    # A video may fill a conversation.
    assert encoder_tokens(old, Load(16384, seqs=4, video=True)) == 16384
    assert encoder_tokens(new, Load(16384, video=True)) == 16384
    assert encoder_tokens(one_process, Load(4096, seqs=1, images=2)) == 2560


def test_transformers_holds_masks_and_the_logits_of_the_prompt() -> None:
    one = ask("7b", "T4", 2, by="cu124-transformers5.24.0-sdpa-sm75")
    # The servers of today are on newer ones: an older one may still be named by a matrix.
    engine = replace(backend_for(one.model, one.variant, one.arch), version=Version("4.51.3"))
    first = _lines(add_up(one.model, engine, Split(1, 2), Load(2048, image_tokens=1024), one.usable))
    assert "NCCL" not in first
    # The first card has the vision tower, in float32: 676550144 x 4. 4096 patches of 1280 x (8 x 4 + 16) + 1176 x 8
    # bytes, and a mask of 4096 x 4096 x 5.
    assert first["vision weights"] == 676550144 * 4
    assert first["activations, vision"] == 4096 * (61440 + 9408) + 83886080
    last = _lines(add_up(one.model, engine, Split(1, 2), Load(16384, image_tokens=1280), one.usable))
    # The last card has none of it, but norm and head. 16384 x (3 x 18944 x 2 + 5 x 3584 x 2), logits of
    # 16384 x 152064 x 2, sampling 152064 x 32.
    assert "vision weights" not in last
    assert last["activations, text"] == 16384 * 149504 + 16384 * 304128 + 152064 * 32
    # As long as the sliding window: three masks of 32768 x 32768 x 2.
    whole = _lines(add_up(one.model, engine, Split(1, 2), Load(32768, image_tokens=1280), one.usable))
    assert whole["activations, text"] == 32768 * (149504 + 304128) + 6 * 2**30 + 152064 * 32


def test_ids_used_here_are_variants() -> None:
    assert ask("3b-awq", "2080 Ti").variant.id == SM75
    assert ask("7b", "RTX 3090").variant.id == SM86
