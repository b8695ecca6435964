"""Names of models: read whole or not at all, and never without their owner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images.core.errors import UsageError
from images.run.fit.config import from_config
from images.run.fit.find import read_config_file, read_model
from images.run.fit.names import by_name_alone, published, typed_name
from images.run.fit.parallel import obstacles
from images.run.fit.weights import stage_weights, vision_weights
from tests.helpers.fits import model
from tests.unit.run.fit.test_find import AWQ, CONFIG

# Names as repositories have them whose last words nobody here understands, or that only a config.json tells.
UNTOLD = [
    "Qwen/Qwen2.5-VL-32B-Instruct-GPTQ",
    "someone/Qwen2.5-VL-7B-Instruct-4bit",
    "someone/Qwen2.5-VL-7B-Instruct-int4",
    "someone/Qwen2.5-VL-7B-Instruct-abliterated",
    "someone/Qwen2.5-VL-7B-Instruct-AWQ-v2",
    "someone/Qwen2.5-VL-7B-Instruct-AWQ-8bit",
    "someone/Qwen2.5-VL-72B-Instruct-GPTQ-Int4-padded",
    "unsloth/Qwen2.5-VL-7B-Instruct-bnb-4bit",
    "unsloth/Qwen2.5-VL-7B-Instruct-unsloth-bnb-4bit",
    "someone/Qwen2.5-VL-7B-Instruct-NVFP4",
    "someone/Qwen2.5-VL-7B-Instruct-AutoRound",
    "someone/Qwen2.5-VL-7B",
    "someone/Qwen2.5-VL-8B-Instruct",
    "someone/my-model",
]
OTHERS = [
    "someone/Qwen2.5-VL-7B-Instruct-GGUF",
    "mlx-community/Qwen2.5-VL-7B-Instruct-4bit",
    "someone/Qwen2.5-VL-7B-Instruct-MLX-8bit",
    "someone/Qwen2.5-VL-7B-Instruct-LoRA",
    "someone/Qwen2.5-VL-7B-Instruct-exl2",
    "someone/qwen2.5-vl-7b-instruct_openvino",
]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("7b", "7b"),
        (" 7B-AWQ ", "7b-awq"),
        ("7b-gptq", "7b-gptq"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "7b"),
        ("qwen/qwen2.5-vl-72b-instruct-awq", "72b-awq"),
        ("Qwen2.5-VL-3B-Instruct-AWQ", "3b-awq"),
        ("https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct-AWQ/tree/main", "7b-awq"),
        ("https://www.modelscope.cn/models/Qwen/Qwen2.5-VL-7B-Instruct", "7b"),
    ],
)
def test_published_checkpoints_by_their_exact_names(text: str, name: str) -> None:
    found = published(text)
    assert found == model(name) and found.name == name


@pytest.mark.parametrize(
    "text",
    [
        *UNTOLD,
        *OTHERS,
        "someone/Qwen2.5-VL-7B-Instruct",
        "someone/Qwen2.5-VL-7B-Instruct-AWQ",
        "Qwen2.5-VL-7B-Instruct-FP8",
    ],
)
def test_no_other_name_is_a_published_checkpoint(text: str) -> None:
    assert published(text) is None


@pytest.mark.parametrize("text", [*UNTOLD, *OTHERS, "Qwen2.5-VL-7B-Instruct-FP8", "Qwen/Qwen2.5-VL-8B-Instruct"])
def test_what_a_name_does_not_tell_is_not_summed(text: str) -> None:
    with pytest.raises(UsageError) as told:
        read_model(text)
    assert text in told.value.what and told.value.do
    assert told.value.cause or "/" not in text


def test_the_words_that_were_not_understood_are_named() -> None:
    with pytest.raises(UsageError, match="does not tell") as told:
        read_model("someone/Qwen2.5-VL-7B-Instruct-AWQ-v2")
    assert "'AWQ-v2' in it is not understood" in told.value.cause
    assert "--config FILE" in told.value.do


def test_a_name_that_is_understood_keeps_its_owner_and_tells_what_is_taken_for_granted() -> None:
    found = read_model("someone/Qwen2.5-VL-7B-Instruct-AWQ")
    assert found.name == found.source == "someone/Qwen2.5-VL-7B-Instruct-AWQ"
    assert "someone/Qwen2.5-VL-7B-Instruct-AWQ was not read; taken for granted" in found.shape.unverified
    whole = stage_weights(model("7b-awq"), (28,), 0, 1)
    assert stage_weights(found, (28,), 0, 1) == whole


@pytest.mark.parametrize(
    ("text", "form", "bits"),
    [
        ("Qwen/Qwen2.5-VL-32B-Instruct-GPTQ-Int8", "gptq", 8),
        ("someone/Qwen2.5-VL-7B-Instruct-GPTQ-Int4", "gptq", 4),
        ("RedHatAI/Qwen2.5-VL-7B-Instruct-FP8-dynamic", "fp8", 8),
        ("RedHatAI/Qwen2.5-VL-7B-Instruct-quantized.w4a16", "wna16", 4),
        ("RedHatAI/Qwen2.5-VL-7B-Instruct-quantized.w8a8", "int8", 8),
        ("someone/Qwen2-VL-7B-Instruct", "16-bit", 16),
    ],
)
def test_each_word_for_a_form_is_that_form(text: str, form: str, bits: int) -> None:
    found = read_model(text)
    assert (found.name, found.form, found.weight_bits) == (text, form, bits)


def test_8_bits_are_not_summed_as_4() -> None:
    found = read_model("Qwen/Qwen2.5-VL-32B-Instruct-GPTQ-Int8")
    assert 33 < (stage_weights(found, (64,), 0, 1) + vision_weights(found, 1)) / 2**30 < 35


def test_padding_is_known_of_the_published_checkpoint_alone() -> None:
    theirs, ours = by_name_alone("someone/Qwen2.5-VL-72B-Instruct-AWQ"), published("72b-awq")
    assert theirs is not None and ours is not None
    assert (theirs.shape.intermediate, ours.shape.intermediate) == (29568, 29696)
    assert any("231 groups" in one.why for one in obstacles(theirs, 2, "awq_marlin"))
    assert not list(obstacles(ours, 2, "awq_marlin"))


def test_pages_of_hubs_are_names() -> None:
    assert typed_name(" https://hf.co/a/b/blob/main/config.json ") == "a/b"
    assert typed_name("huggingface.co/a/b") == typed_name("a/b/") == "a/b"
    assert typed_name("a/b") == "a/b" and typed_name("/models/x") == "/models/x"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct@main", "names a revision"),
        ("Qwen/Qwen2.5-VL-7B-Instruct:refs/pr/1", "names a revision"),
        ("", "which model"),
        ("  ", "which model"),
        ("someone/Qwen2.5-VL-7B-Instruct-LoRA-merged", "does not tell"),
    ],
)
def test_what_else_people_type(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_model(text)


def test_a_config_file_is_the_model_of_the_name_it_is_given_for(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**CONFIG, "quantization_config": AWQ}))
    found = read_config_file(str(file), "someone/Qwen2.5-VL-7B-Instruct-mine")
    assert found.name == found.source == "someone/Qwen2.5-VL-7B-Instruct-mine"
    assert not found.shape.unverified and found.form == "awq"
    assert read_config_file(str(file)).name == str(tmp_path)


def test_weights_of_mlx_are_not_summed_as_16_bits() -> None:
    with pytest.raises(UsageError, match="nothing that the images serve") as told:
        from_config({**CONFIG, "quantization": {"bits": 4, "group_size": 64}}, "someone/mine")
    assert "MLX" in told.value.cause


def test_a_file_too_large_for_a_config_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(UsageError, match=r"config\.json"):
        read_config_file(str(file))


def test_a_config_of_a_published_size_is_advised_that_size() -> None:
    assert from_config(CONFIG).shape.name == "7b"
    assert from_config({**CONFIG, "intermediate_size": 19200}).shape.name == "7b"
    assert from_config({**CONFIG, "num_hidden_layers": 27}).shape.name == "model"
