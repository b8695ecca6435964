"""fit on the cards that people have: what is chosen, what is refused and why, and what holds for every fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.cards.asked import AskedCards
from images.cards.data import Card
from images.core.errors import CardstockError, NoImageFits, UsageError
from images.matrix.arch import Arch
from images.matrix.drivers import parse_driver
from images.run.fit.alternatives import find_alternatives
from images.run.fit.choose import LENGTHS, USUAL, Ask, Fit, fit
from images.run.fit.families import SHAPES
from images.run.fit.model import Form, Model
from images.run.fit.parallel import Split
from images.run.fit.settings import environment, server_flags, setting_choices, unverified
from images.run.fit.shape import Shape, Vision
from images.run.fit.usable_memory import GIB
from images.run.fit.weights import kv_bytes, stage_weights, vision_weights
from tests.helpers.fits import SM75, ask, card, image, model, unpadded, variant


def _value(found: Fit, flag: str) -> str:
    words = server_flags(found)
    return words[words.index(flag) + 1]


def _chosen(found: Fit) -> dict[str, str]:
    return {one.name: one.value for one in setting_choices(found)}


def test_3b_awq_on_one_2080_ti() -> None:
    # 10.5 GiB: 3.17 of weights leave room for 32768 tokens of 36864 bytes, 1.125 GiB, and all the rest.
    found = fit(ask("3b-awq", "2080 Ti"))
    assert (found.split, found.load.length) == (Split(1, 1), 32768)
    assert (found.backend.dtype, found.backend.kernel, found.backend.chunked) == ("float16", "awq", False)
    assert _chosen(found)["attention"] == _chosen(found)["vision attention"] == "XFORMERS"
    assert _value(found, "--dtype") == "half"
    # V0 computes a prompt in one piece, so a step must hold it.
    assert _value(found, "--max-num-batched-tokens") == "32768"
    assert "--tensor-parallel-size" not in server_flags(found) and "--quantization" not in server_flags(found)


def test_7b_on_a_3090() -> None:
    # 15.4 GiB of weights of 23.5, 1.75 for 32768 tokens.
    found = fit(ask("7b", "RTX 3090"))
    assert (found.split, found.load.length) == (Split(1, 1), 32768)
    assert (found.backend.dtype, found.backend.kernel, found.backend.chunked) == ("bfloat16", "", True)
    assert _value(found, "--dtype") == "bfloat16"
    assert _chosen(found)["attention"] == "FLASH_ATTN"


def test_7b_on_eight_2080() -> None:
    # 28 heads over 8 cards cannot be, over 4 can: 7 heads, 1 key head, 4 heads of the vision tower, width 3420 / 4.
    found = fit(ask("7b", "RTX 2080", 8))
    assert found.split == Split(4, 2)
    why = next(one.why for one in setting_choices(found) if one.name == "tensor parallel size")
    assert "28 attention heads must be divisible by tensor parallel size 8" in why
    assert (_value(found, "--tensor-parallel-size"), _value(found, "--pipeline-parallel-size")) == ("4", "2")


def test_72b_awq_on_two_3090_padded() -> None:
    # 29696 is 232 groups of 128: 116 for each card. 43.2 GB of weights halved are 20.1 GiB of 23.5: 163840 bytes a
    # token leave some 9000 tokens.
    found = fit(ask("72b-awq", "RTX 3090", 2))
    assert (found.split, found.load.length, found.backend.kernel) == (Split(2, 1), 6144, "awq_marlin")


def test_72b_awq_on_two_3090_unpadded() -> None:
    # 29568 is 231 groups: two cards would need half a group each.
    with pytest.raises(NoImageFits) as refused:
        fit(ask(unpadded(), "RTX 3090", 2, tp=2))
    assert "231 groups of 128, which cannot be cut into 2" in refused.value.cause
    assert "1 x 2" in refused.value.do
    # One after the other they can: half of the layers each, with the whole vision tower on both, so less is left.
    found = fit(ask(unpadded(), "RTX 3090", 2))
    assert (found.split, found.load.length) == (Split(1, 2), 2048)


@pytest.mark.parametrize("on", ["A100 40GB", "A100 80GB"])
def test_72b_awq_on_four_a100(on: str) -> None:
    # 29696 / 4 = 7424 = 58 groups; 10.0 GiB of weights for each.
    found = fit(ask("72b-awq", on, 4))
    assert (found.split, found.load.length) == (Split(4, 1), 32768)


def test_72b_on_sixteen_2080_ti_in_two_machines() -> None:
    # Weights: 146.8 GB over 16 are 8.6 GiB of 10.5. 40 layers x 2 x 1 kv head x 128 x 2 = 20480 bytes a token.
    found = fit(ask("72b", "2080 Ti", 8, 2))
    assert (found.split, found.load.length) == (Split(8, 2), 2048)
    assert _value(found, "--distributed-executor-backend") == "ray"
    assert any("several machines" in what for what in unverified(found))
    assert not unverified(fit(ask("7b", "2080 Ti", 4)))
    # The official 4-bit form leaves far more: 29696 / 8 = 3712 = 29 groups.
    assert fit(ask("72b-awq", "2080 Ti", 8, 2)).load.length == 32768


def test_tensor_parallel_6_is_refused() -> None:
    with pytest.raises(NoImageFits) as refused:
        fit(ask("7b", "RTX 4090", 6, tp=6))
    assert refused.value.cause == "28 attention heads must be divisible by tensor parallel size 6"
    assert "2 x 3" in refused.value.do
    assert fit(ask("7b", "RTX 4090", 6)).split == Split(2, 3)


def test_awq_on_volta_is_refused() -> None:
    with pytest.raises(NoImageFits) as refused:
        fit(ask("7b-awq", "V100 32GB"))
    assert "AWQ needs 7.5" in refused.value.cause
    # 15.4 GiB of 16-bit weights fit its 31.4, and GPTQ does.
    for name in ("7b-gptq", "7b-fp16"):
        found = fit(ask(name, "V100 32GB"))
        assert (found.backend.dtype, found.backend.kernel) == ("float16", "gptq" if "gptq" in name else "")
    # transformers unpacks AWQ on any card.
    other = fit(ask("7b-awq", "V100 32GB", by="cu124-transformers5.24.0-sdpa-sm70"))
    assert other.backend.kernel == "unpacked at each use"


def test_bf16_on_turing_is_refused_and_half_is_not() -> None:
    with pytest.raises(NoImageFits) as refused:
        fit(ask("3b-bf16", "2080 Ti"))
    assert "bfloat16 needs 8.0" in refused.value.cause and "3b-fp16" in refused.value.do
    assert find_alternatives(ask("3b-bf16", "2080 Ti"))[0].model.name == "3b-fp16"
    assert fit(ask("3b-fp16", "2080 Ti")).backend.dtype == "float16"
    assert fit(ask("3b", "2080 Ti")).backend.dtype == "float16"
    assert fit(ask("3b-bf16", "RTX 3090")).backend.dtype == "bfloat16"


def test_transformers_on_several_cards_is_one_process() -> None:
    found = fit(ask("7b", "T4", 2, by="cu124-transformers5.24.0-sdpa-sm75"))
    assert found.split == Split(1, 2)
    words = server_flags(found)
    assert words[words.index("--pipeline-parallel-size") + 1] == "2" and "--tensor-parallel-size" not in words
    assert environment(found)["CARDSTOCK_MAX_PIXELS"] == str(found.load.image_tokens * 784)
    assert any("device_map" in one.why for one in setting_choices(found))
    with pytest.raises(NoImageFits, match="one machine only"):
        fit(ask("7b", "T4", 2, 2, by="cu124-transformers5.24.0-sdpa-sm75"))
    with pytest.raises(NoImageFits, match="cannot be cut"):
        fit(ask("7b", "T4", 2, by="cu124-transformers5.24.0-sdpa-sm75", tp=2))


def test_the_3b_vision_tower_overflows_in_old_vllm() -> None:
    with pytest.raises(NoImageFits, match="!!!!"):
        fit(ask("3b-awq", "2080 Ti", by="cu121-vllm0.7.3-xformers-sm75"))
    found = fit(ask("7b-awq", "2080 Ti", by="cu121-vllm0.7.3-xformers-sm75"))
    assert _value(found, "--limit-mm-per-prompt") == f"image={found.load.images},video={int(found.load.video)}"


def test_a_vision_tower_that_cannot_be_cut_is_left_whole() -> None:
    # 3420 / 8 is no whole number; 16 heads, 11008 / 8 are.
    new = fit(ask("3b", "A100 80GB", 8))
    assert new.split == Split(8, 1, whole_vision=True)
    assert _value(new, "--mm-encoder-tp-mode") == "data"
    # vLLM 0.8.5 has no such mode.
    assert fit(ask("3b", "2080 Ti", 8)).split == Split(4, 2)


def test_the_newest_stack_names_both_attentions() -> None:
    found = fit(ask("7b", "L40S", by="cu130-vllm0.33.0-flash-attn-sm89"))
    assert _value(found, "--attention-backend") == _value(found, "--mm-encoder-attn-backend") == "FLASH_ATTN"
    two = fit(ask("72b", "H200", 4, 2, by="cu130-vllm0.33.0-flash-attn-sm90"))
    assert _value(two, "--distributed-executor-backend") == "ray"


def test_tritons_attention_stays_where_the_image_says_so() -> None:
    found = fit(ask("7b-awq", "T4", by="cu130-vllm0.33.0-triton-sm75"))
    assert {one.name: one.value for one in found.backend.choices if "attention" in one.name} == {
        "attention": "TRITON_ATTN",
        "vision attention": "TORCH_SDPA",
    }
    assert "FLASH_ATTN" not in server_flags(found)


def test_flashinfers_attention_stays_where_the_image_says_so() -> None:
    found = fit(ask("7b-awq", "T4", by="cu130-vllm0.33.0-flashinfer-sm75"))
    assert {one.name: one.value for one in found.backend.choices if "attention" in one.name} == {
        "attention": "FLASHINFER",
        "vision attention": "TORCH_SDPA",
    }
    assert "FLASH_ATTN" not in server_flags(found)
    assert any("no card has run them" in what for what in unverified(found))


def test_what_nobody_has_shown_is_reported() -> None:
    found = fit(ask("7b-awq", "2080 Ti", by="cu128-vllm0.11.0-xformers-sm75"))
    assert any("below 8.0" in what for what in unverified(found))


def test_a_card_too_small_says_what_is_missing() -> None:
    with pytest.raises(NoImageFits) as refused:
        fit(ask("72b", "RTX 4090"))
    # Text weights 145.4 GB of at most 25.2.
    assert "text weights alone take 145 GB" in refused.value.cause
    here, more = find_alternatives(ask("72b", "RTX 4090"))
    # 20.7 GB fit on one; 43 GB on two.
    assert (here.model.name, here.count, more.model.name, more.count) == ("32b-awq", 1, "72b-awq", 2)


def test_nothing_fits_a_card_of_2_gb() -> None:
    assert find_alternatives(replace(ask("3b", "2080 Ti"), usable=GIB)) == ()


def test_graphs_are_given_up_last_but_length_is_kept() -> None:
    # The least memory, in steps of 8 MB, that holds a conversation of 32768 tokens leaves nothing for the rest.
    roomy = ask("3b-awq", "RTX 3090")
    least = next(
        step * 2**23
        for step in range(500, 1000)
        if (found := _try(replace(roomy, usable=step * 2**23))) and found.load.length == 32768
    )
    tight = fit(replace(roomy, usable=least))
    assert "--enforce-eager" in server_flags(tight)
    assert "--enforce-eager" not in server_flags(fit(roomy))


def _try(asked: Ask) -> Fit | None:
    try:
        return fit(asked)
    except CardstockError:
        return None


def _by_driver(asked: Ask, driver: str) -> Ask:
    return replace(asked, on=replace(asked.on, driver=parse_driver(driver)))


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        (ask("7b", "RTX 3090", by=SM75), NoImageFits, "does not run on"),
        (ask("7b", "RTX 3090", 4, tp=3), UsageError, "is not 4 cards"),
        (ask("7b", "RTX 3090", 0), UsageError, "must be 1 or more"),
        (_by_driver(ask("7b", "RTX 3090"), "470.82"), NoImageFits, "too old"),
        (ask("7b-gptq", "T4", by="cu124-transformers5.24.0-sdpa-sm75"), NoImageFits, "does not read GPTQ"),
        (replace(ask("7b", "RTX 3090"), variant=variant("cpu-vllm0.32.0-sdpa")), UsageError, "uses no card"),
        (ask("3b", "H200", 8, 8, pp=64), NoImageFits, "cannot be cut"),
    ],
)
def test_what_cannot_be_is_refused(asked: Ask, kind: type[CardstockError], message: str) -> None:
    with pytest.raises(kind, match=message):
        fit(asked)


# -- what holds for every fit

_CAPABILITIES = [Arch(7, 0), Arch(7, 5), Arch(8, 0), Arch(8, 6), Arch(8, 9), Arch(9, 0), Arch(12, 0)]
_NAMES = [f"{size}{form}" for size in SHAPES for form in ("", "-awq", "-gptq")]


@st.composite
def _shapes(draw: st.DrawFn) -> Model:
    """Models of the kind that nobody has made yet."""
    kv = draw(st.sampled_from([1, 2, 3, 4, 8]))
    shape = Shape(
        "model",
        hidden=128 * draw(st.integers(8, 40)),
        layers=draw(st.integers(1, 40)),
        heads=kv * draw(st.integers(1, 8)),
        kv_heads=kv,
        intermediate=64 * draw(st.integers(16, 300)),
        vocab=151936,
        tied=draw(st.booleans()),
        vision=Vision(draw(st.integers(1000, 4000))),
    )
    forms: list[Form] = ["16-bit", "awq", "gptq"]
    return Model(shape, draw(st.sampled_from(forms)), group=draw(st.sampled_from([32, 64, 128])))


@st.composite
def _asks(draw: st.DrawFn) -> Ask:
    arch = draw(st.sampled_from(_CAPABILITIES))
    what = draw(st.sampled_from(_NAMES).map(model) | _shapes())
    own = image(arch)
    servers = [own, variant(own.id.replace("vllm0.8.5.post1-xformers", "transformers5.24.0-sdpa"))]
    servers = servers if own.stack == "cu124" else [own, variant(f"cu130-vllm0.33.0-flash-attn-sm{arch.number}")]
    usable = draw(st.integers(2 * 2**10, 180 * 2**10)) * 2**20
    return Ask(
        what,
        draw(st.sampled_from(servers)),
        AskedCards((Card("a card", arch, 0, "test"),) * draw(st.integers(1, 8)), None),
        usable,
        draw(st.integers(1, 3)),
    )


@settings(max_examples=150, deadline=None)
@given(_asks())
def test_a_fit_keeps_what_the_engine_and_the_card_demand(asked: Ask) -> None:
    found = _try(asked)
    if found is None:
        return
    shape, see, tp, pp = asked.model.shape, asked.model.shape.vision, found.split.tp, found.split.pp
    # All of it lies within the card, and one conversation within the cache.
    assert found.sum.used <= asked.usable
    assert found.sum.tokens >= found.load.length >= LENGTHS[-1]
    assert found.load.images * found.load.image_tokens <= found.load.length // 2
    assert found.load.seqs == 1 or found.sum.tokens >= found.load.seqs * USUAL
    # Weights and one conversation alone leave no doubt, whatever is thought of the rest.
    layers = -(-shape.layers // pp)
    weights = stage_weights(asked.model, (layers,) * pp, min(1, pp - 1), tp)
    assert weights + kv_bytes(asked.model, layers, tp) * found.load.length <= 1.2 * asked.usable
    # vLLM's own checks of a split: config.py, qwen2.py, dist_utils.divide, awq.py and gptq.py, marlin_utils.py.
    assert tp * pp == asked.count * asked.nodes and tp <= asked.count and pp <= shape.layers
    assert shape.heads % tp == 0 and shape.intermediate % tp == 0
    assert shape.kv_heads % tp == 0 or tp % shape.kv_heads == 0
    if asked.model.form != "16-bit":
        for width in (shape.intermediate // tp, shape.heads * shape.head_dim // tp):
            assert width % asked.model.group == 0
            assert not found.backend.kernel.endswith("marlin") or width % 128 == 0
    if not found.split.whole_vision:
        assert see.heads % tp == 0 and see.intermediate % tp == 0
    if asked.arch < Arch(8, 0):
        assert found.backend.dtype == "float16"
    assert vision_weights(asked.model, 1) > 0 and all(one.why and one.source for one in setting_choices(found))


@settings(max_examples=150, deadline=None)
@given(_asks(), st.integers(0, 40 * 2**10))
def test_more_memory_never_gives_a_shorter_conversation(asked: Ask, more: int) -> None:
    found = _try(asked)
    if found is not None:
        larger = fit(replace(asked, usable=asked.usable + more * 2**20))
        assert larger.load.length >= found.load.length


@settings(max_examples=100, deadline=None)
@given(_asks())
def test_a_refusal_has_a_reason_and_what_is_near_fits(asked: Ask) -> None:
    try:
        found = fit(asked)
    except CardstockError as error:
        assert error.cause and error.do
        for other in find_alternatives(asked):
            assert fit(other).sum.missing == 0
    else:
        assert found.sum.missing == 0


@pytest.mark.parametrize("on", ["2080 Ti", "T4", "V100 32GB", "RTX 3090", "RTX 4090", "L4", "A100 80GB", "H200"])
@pytest.mark.parametrize("name", _NAMES)
def test_every_published_model_on_every_common_card(name: str, on: str) -> None:
    for count in (1, 2, 4, 8):
        asked = ask(name, on, count)
        try:
            found = fit(asked)
        except NoImageFits as error:
            assert error.cause and error.do
        else:
            assert found.sum.used <= asked.usable < card(on).memory * GIB
