"""The families of models: their shapes against transformers' own counts, and which image knows which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from images.cards.this_machine import LocalMachine
from images.core.errors import NoImageFits, UsageError
from images.run.fit.backends import backend_for, check_on_cpu
from images.run.fit.choose import fit
from images.run.fit.config import from_config
from images.run.fit.families import SHAPES
from images.run.fit.find import FitOptions, find_fit
from images.run.fit.model import Model, model_by_name
from images.run.fit.weights import stage_weights, vision_weights
from tests.helpers.contexts import context, silent
from tests.helpers.fits import SM75, ask, card, model, variant
from tests.helpers.nonempty import nonempty

# Parameters of the vision tower and of the rest, as transformers 5.19.0 counts them for models of these numbers.
COUNTED = {
    "3b": (668684288, 3085938688),
    "7b": (676550144, 7615616512),
    "32b": (688841984, 32763876352),
    "72b": (704573696, 72706203648),
    "qwen2-vl-2b": (665271296, 1543714304),
    "qwen2-vl-7b": (675759104, 7615616512),
    "qwen2-vl-72b": (699356672, 72706203648),
    "qwen3-vl-2b": (406957056, 1720574976),
    "qwen3-vl-4b": (415347712, 4022468096),
    "qwen3-vl-8b": (576388336, 8190735360),
    "qwen3-vl-32b": (595266800, 32762123264),
}
QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": 3584},
}
QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "qwen3_vl_text",
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 12288,
        "vocab_size": 151936,
        "max_position_embeddings": 262144,
    },
    "vision_config": {
        "depth": 27,
        "hidden_size": 1152,
        "num_heads": 16,
        "intermediate_size": 4304,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}


def test_every_shape_has_as_many_parameters_as_transformers_counts() -> None:
    assert set(SHAPES) == set(COUNTED)
    for name, (vision, text) in nonempty(COUNTED.items()):
        one = Model(SHAPES[name])
        assert vision_weights(one, 1) == 2 * vision, name
        assert stage_weights(one, (one.shape.layers,), 0, 1) == 2 * text, name


@pytest.mark.parametrize(("data", "name"), [(QWEN2, "qwen2-vl-7b"), (QWEN3, "qwen3-vl-8b")])
def test_a_config_of_each_family_is_the_published_model(data: dict[str, Any], name: str) -> None:
    assert {**vars(from_config(data).shape), "name": name} == vars(model(name).shape)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("qwen2-vl-2b", "Qwen/Qwen2-VL-2B-Instruct"),
        ("qwen2-vl-7b-gptq", "Qwen/Qwen2-VL-7B-Instruct-GPTQ-Int4"),
        ("qwen2-vl-72b-gptq-int8", "Qwen/Qwen2-VL-72B-Instruct-GPTQ-Int8"),
        ("qwen3-vl-8b-fp8", "Qwen/Qwen3-VL-8B-Instruct-FP8"),
        ("32b-gptq-int8", ""),
        ("qwen3-vl-8b-awq", ""),
    ],
)
def test_what_is_published_has_its_repository_and_the_rest_says_what_is_assumed(name: str, source: str) -> None:
    found = model(name)
    assert found.source == source
    assert bool(found.shape.unverified) == (not source)


@pytest.mark.parametrize("form", ["awq", "gptq", "gptq-int8"])
def test_the_published_quantised_72b_of_qwen2_vl_is_padded(form: str) -> None:
    assert model(f"qwen2-vl-72b-{form}").shape.intermediate == 29696
    assert fit(ask(f"qwen2-vl-72b-{form}", "A100 80GB", 2)).split.tp == 2


def test_8_bits_are_not_summed_as_4() -> None:
    # 32B: 64 layers of 487.3 M weights, a table and a head of 778.6 M, a tower of 688.8 M.
    four, eight = (stage_weights(model(f"32b-{form}"), (64,), 0, 1) for form in ("gptq", "gptq-int8"))
    assert (round(four / 2**30, 1), round(eight / 2**30, 1)) == (18.0, 32.7)


@pytest.mark.parametrize(
    ("text", "said"),
    [("qwen3-vl-7b", "Qwen3-VL"), ("qwen2-vl-3b", "Qwen2-VL"), ("Qwen/Qwen2-VL-8B-Instruct", "Qwen2-VL")],
)
def test_a_size_that_the_family_has_not(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"there is no {said}") as caught:
        model_by_name(text)
    assert said.lower() in caught.value.do


@pytest.mark.parametrize(
    "text",
    ["Qwen/Qwen2.5-VL-7B-Instruct-abliterated", "Qwen/Qwen3-VL-8B-Thinking", "Qwen/Qwen2.5-VL-7B-Instruct-GPTQ-Int3"],
)
def test_a_suffix_that_is_not_known_makes_it_another_model(text: str) -> None:
    assert model_by_name(text) is None


@pytest.mark.parametrize(
    ("image", "on", "why"),
    [
        (SM75, "RTX 2080 Ti", "vLLM 0.8.5.post1, and Qwen3-VL needs 0.11"),
        ("cu124-vllm0.8.5.post1-flash-attn-sm86", "RTX 3090", "Qwen3-VL needs 0.11"),
    ],
)
def test_an_image_that_is_older_than_the_family_is_told_so(image: str, on: str, why: str) -> None:
    with pytest.raises(NoImageFits, match=why):
        backend_for(model("qwen3-vl-2b"), variant(image), card(on).arch)
    assert backend_for(model("qwen2-vl-2b"), variant(image), card(on).arch).vllm


def test_qwen3_vl_is_served_where_the_stack_knows_it() -> None:
    found = fit(ask("qwen3-vl-8b", "RTX 3090"))
    assert found.backend.dtype == "bfloat16" and found.load.length == 32768
    check_on_cpu(model("qwen3-vl-2b"), variant("cpu-vllm0.32.0-sdpa"))


@pytest.mark.parametrize(
    ("name", "why"),
    [("7b-fp8", "AMX"), ("qwen2-vl-7b-gptq-int8", "4 bits"), ("7b-w8a16", "4 bits")],
)
def test_what_the_server_on_a_cpu_does_not_take(name: str, why: str) -> None:
    with pytest.raises(NoImageFits, match=why):
        check_on_cpu(model(name), variant("cpu-vllm0.32.0-sdpa"))


def test_an_order_of_inputs_is_not_for_the_cpu() -> None:
    with pytest.raises(NoImageFits, match="desc_act"):
        check_on_cpu(replace(model("7b-gptq"), act_order=True), variant("cpu-vllm0.32.0-sdpa"))
    check_on_cpu(model("7b-gptq"), variant("cpu-vllm0.32.0-sdpa"))


@pytest.mark.parametrize(
    ("name", "on", "line"),
    [
        (
            "qwen3-vl-2b",
            "RTX 2080 Ti",
            "--model qwen3-vl-2b --card 'RTX 2080 Ti' --variant cu130-vllm0.33.0-triton-sm75",
        ),
        ("qwen3-vl-8b", "RTX 2080 Ti", "--model qwen3-vl-8b-awq --card 'RTX 2080 Ti' --variant cu130-"),
        ("7b-fp8", "T4", "--model 7b-fp8 --card T4 --variant cu130-vllm0.33.0-triton-sm75"),
        ("qwen3-vl-4b", "Titan V", "--variant cu129-vllm0.19.1-triton-sm70"),
    ],
)
def test_another_image_that_serves_it_on_this_card_is_named(name: str, on: str, line: str) -> None:
    with pytest.raises(NoImageFits) as told:
        find_fit(context(silent()[0]), FitOptions(name, [on]), LocalMachine(why="none"))
    said = told.value.do.replace("'GeForce RTX 2080 Ti'", "'RTX 2080 Ti'").replace("'Tesla T4'", "T4")
    assert line in said


def test_no_other_image_is_named_for_one_that_was_asked_for_or_that_lacks_memory() -> None:
    for options in (FitOptions("qwen3-vl-2b", ["T4"], variant=SM75), FitOptions("72b", ["T4"])):
        with pytest.raises(NoImageFits) as told:
            find_fit(context(silent()[0]), options, LocalMachine(why="none"))
        assert "triton" not in told.value.do
