"""`invoke fit`: models by name and config.json, cards by name and NVML, lines, JSON, and what is told of bad words."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images.cards.this_machine import LocalCard, LocalMachine, MigInstance
from images.commands.fit import show_fit
from images.core.errors import CardstockError, NoImageFits, NothingSelected, UsageError
from images.matrix.arch import Arch
from images.run.fit.config import from_config
from images.run.fit.find import FitOptions, read_model
from images.run.fit.model import model_by_name
from tests.helpers.contexts import context, silent
from tests.helpers.fits import SM75, model, unpadded

# As published for 7B (compatibility facts, section 7), in the flat form.
CONFIG: dict[str, Any] = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 128000,
    "tie_word_embeddings": False,
    "vision_config": {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420},
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}


def _compressed(kind: str, bits: int, act: int | None = None, **more: Any) -> dict[str, Any]:
    """quantization_config as llm-compressor writes it, in groups of 128."""
    weights = {"num_bits": bits, "type": kind, "strategy": "group", "group_size": 128, "symmetric": True, **more}
    inputs = None if act is None else {"num_bits": act, "type": kind, "strategy": "token", "dynamic": True}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head", "re:visual.*"]}


def _run(options: FitOptions, json_form: bool = False, machine: LocalMachine | None = None) -> str:
    """What goes to stderr; stdout is captured by the test."""
    report, err = silent()
    show_fit(context(report, locked={}), replace(options, json=json_form), machine or LocalMachine(why="none"))
    return err.getvalue()


def _machine(*names: str, gib: float = 24, driver: str = "570.86.10") -> LocalMachine:
    arch = {"NVIDIA GeForce RTX 3090": Arch(8, 6), "NVIDIA GeForce RTX 2080 Ti": Arch(7, 5)}
    return LocalMachine(driver, "12.8", tuple(LocalCard(name, "GPU-1", arch[name], int(gib * 2**30)) for name in names))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("7b", "7b"),
        (" 7B-AWQ ", "7b-awq"),
        ("3b-half", "3b-fp16"),
        ("Qwen/Qwen2.5-VL-72B-Instruct-AWQ", "72b-awq"),
        ("Qwen2.5-VL-3B-Instruct", "3b"),
        ("qwen2-vl-2b", "qwen2-vl-2b"),
        ("Qwen/Qwen2-VL-7B-Instruct-AWQ", "qwen2-vl-7b-awq"),
        ("Qwen/Qwen2-VL-72B-Instruct-GPTQ-Int8", "qwen2-vl-72b-gptq-int8"),
        ("Qwen/Qwen3-VL-8B-Instruct-FP8", "qwen3-vl-8b-fp8"),
        ("7b-w4a16", "7b-w4a16"),
        ("7b-w8a8", "7b-w8a8"),
    ],
)
def test_names_of_models(text: str, name: str) -> None:
    assert read_model(text).name == name
    assert read_model(name) == read_model(text)  # what is told can be typed


def test_the_published_72b_awq_is_padded() -> None:
    assert model("72b-awq").shape.intermediate == 29696
    assert (model("72b").shape.intermediate, model("72b-gptq").shape.intermediate) == (29568, 29568)
    assert model("72b-gptq").shape.unverified and model("72b").shape.unverified and not model("7b").shape.unverified


def test_a_config_is_the_model_it_describes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for text in (str(tmp_path), str(tmp_path / "config.json")):
        found = read_model(text)
        assert (found.form, found.source) == ("16-bit", str(tmp_path))
        assert {**vars(found.shape), "name": "7b"} == vars(model("7b").shape)


def test_a_config_of_today_has_its_text_apart() -> None:
    text = {key: value for key, value in CONFIG.items() if key not in ("model_type", "vision_config")}
    nested = {"model_type": "qwen2_5_vl", "vision_config": CONFIG["vision_config"], "text_config": text}
    assert from_config(nested).shape == from_config(CONFIG).shape


def test_a_quantised_config_keeps_its_group_and_its_width() -> None:
    sizes = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}
    vision = {**CONFIG["vision_config"], "intermediate_size": 3456}
    whole = {**CONFIG, **sizes, "intermediate_size": 29568, "vision_config": vision, "quantization_config": AWQ}
    found = from_config(whole)
    assert (found.form, found.group, found.shape.intermediate) == ("awq", 128, 29568)
    assert found.shape.vision == unpadded().shape.vision


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, r"LlamaForCausalLM \(llama\)"),
        ({"model_type": "qwen3_vl_moe"}, "qwen3_vl_moe, a mixture of experts"),
        ({"model_type": None}, "names no architecture"),
        ({"vision_config": None}, "qwen2_5_vl, without a vision_config"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"vision_config": {"depth": 0}}, "is"),
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000"),
        ({"quantization_config": {"quant_method": "hqq"}}, "the form hqq"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "no image holds the package"),
        ({"quantization_config": {"bits": 4}}, "without quant_method"),
        ({"quantization_config": {**AWQ, "bits": 8}}, "AWQ with 8 bits"),
        ({"quantization_config": {**AWQ, "bits": None}}, "AWQ with no number of bits"),
        ({"quantization_config": {**AWQ, "group_size": None}}, "AWQ without a group_size"),
        ({"quantization_config": {**AWQ, "group_size": 0}}, "AWQ in groups of 0"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 5, "group_size": 128}}, "GPTQ with 5 bits"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}}, "blocks of"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "0 groups of layers"),
        ({"quantization_config": _compressed("int", 4, act=8)}, r"weights of 4 bits .* activations of 8"),
        ({"quantization_config": _compressed("float", 4)}, "weights of 4 bits"),
        ({"quantization_config": "awq"}, "holds no settings"),
    ],
)
def test_a_config_that_fit_cannot_use(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_config({**CONFIG, **change})


@pytest.mark.parametrize("text", ["9b", "7b-int3", "Qwen/Qwen2.5-VL-8B-Instruct", "no/such-model"])
def test_unknown_models(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_model(text)
    assert "7b" in caught.value.do


def test_other_names_are_left_to_folders() -> None:
    assert model_by_name("/models/mine") is None


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no config\.json"):
        read_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 20')
    with pytest.raises(UsageError, match="is not JSON"):
        read_model(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UsageError, match="holds no settings"):
        read_model(str(tmp_path))


def test_the_last_line_is_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    result = _run(FitOptions("3b-awq", ["RTX 2080 Ti"]))
    docker, line = result.splitlines()[-2:]
    assert line == "next: ./inv serve --model 3b-awq --card 'RTX 2080 Ti'"
    words = shlex.split(docker)
    assert words[:2] == ["docker", "run"] and f"cardstock/qwen2.5-vl:{SM75}" in words
    assert words[words.index("--model") + 1] == "Qwen/Qwen2.5-VL-3B-Instruct-AWQ"
    assert json.loads(words[words.index("--limit-mm-per-prompt") + 1])["image"] >= 1
    out = capsys.readouterr().out
    assert out.startswith(f"3b-awq on GeForce RTX 2080 Ti: {SM75}\n")
    assert "3.17" not in out and "GiB  text weights" in out and "together, of 10.50 GiB" in out


def test_json_has_stdout_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    _run(FitOptions("7b", ["RTX 3090"], count=2), json_form=True)
    data = json.loads(capsys.readouterr().out)
    assert (data["tensor_parallel_size"], data["count"], data["arch"]) == (2, 2, "8.6")
    assert sum(line["bytes"] for line in data["memory"]["lines"]) == data["memory"]["used"] <= data["memory"]["usable"]
    assert data["max_pixels"] == data["image_tokens"] * 28 * 28
    words = shlex.split(data["commands"][0])
    assert words[:2] == ["docker", "run"] and words[words.index("--gpus") + 1] == "2"


def test_the_cards_of_this_machine_with_their_own_memory(capsys: pytest.CaptureFixture[str]) -> None:
    two = _machine("NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3090", gib=23.9)
    _run(FitOptions("7b"), json_form=True, machine=two)
    data = json.loads(capsys.readouterr().out)
    assert (data["count"], data["variant"]) == (2, "cu129-vllm0.19.1-flash-attn-sm86")
    assert data["memory"]["usable"] == int(23.9 * 2**30) - 2**29
    _run(FitOptions("7b", count=1), json_form=True, machine=two)
    assert json.loads(capsys.readouterr().out)["count"] == 1


def test_a_slice_counts_as_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    part = MigInstance("MIG 3g.20gb", "MIG-1", 20 * 2**30)
    cut = LocalCard("NVIDIA A100-SXM4-40GB", "GPU-1", Arch(8, 0), 40 * 2**30, True, (part,))
    _run(FitOptions("7b-awq"), json_form=True, machine=LocalMachine("570.86.10", "12.8", (cut,)))
    assert json.loads(capsys.readouterr().out)["memory"]["usable"] == int(19.5 * 2**30)


def test_an_older_driver_gets_an_image_that_runs_on_it(capsys: pytest.CaptureFixture[str]) -> None:
    _run(FitOptions("7b", ["T4"], count=4, driver="470.82"), json_form=True)
    assert json.loads(capsys.readouterr().out)["variant"].startswith("cu118-")


def test_two_kinds_of_cards_are_as_good_as_the_least(capsys: pytest.CaptureFixture[str]) -> None:
    _run(FitOptions("7b", ["A100 80GB, A100 40GB"]), json_form=True)
    data = json.loads(capsys.readouterr().out)
    assert data["count"] == 2
    assert data["memory"]["usable"] == 40 * 2**30 - int(40 * 2**30 * 0.02)


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (FitOptions("7b"), NoImageFits, "no NVIDIA card to fit"),
        (FitOptions("7b", ["RTX 2090"]), UsageError, "RTX 2090"),
        (FitOptions("7b", ["RTX 3090"], variant="cu128-sm86"), NothingSelected, "no variant cu128-sm86"),
        (FitOptions("7b", ["RTX 3090"], driver="new"), UsageError, "not a driver version"),
        (FitOptions("7b", ["T4, B200"]), NoImageFits, "no image serves these cards together"),
        (FitOptions("7b", ["GTX 1080"]), NoImageFits, "no image for"),
        (FitOptions("7b", ["RTX 3090"], count=-1), UsageError, "must be 1 or more"),
    ],
)
def test_words_that_cannot_be(words: FitOptions, kind: type[CardstockError], message: str) -> None:
    with pytest.raises(kind) as found:
        _run(words)
    assert message in found.value.what
    assert found.value.do


def test_a_refusal_names_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoImageFits) as refused:
        _run(FitOptions("72b", ["RTX 4090"]))
    assert refused.value.exit_code == 4
    typed = refused.value.do.partition("what fits: ")[2].split(" or ")
    for line in typed:
        words = shlex.split(line)
        assert words[:3] == ["./inv", "fit", "--model"]
        count = int(words[words.index("--count") + 1]) if "--count" in words else 0
        _run(FitOptions(words[3], [words[words.index("--card") + 1]], count=count))
    assert len(typed) == 2
    assert capsys.readouterr().out.count("together, of") == 2


def test_a_folder_is_mounted_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    words = shlex.split(_run(FitOptions(str(folder), ["RTX 3090"])).splitlines()[-2])
    assert f"type=bind,source={folder},target=/models,readonly" in words
