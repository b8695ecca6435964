"""The tracer: what a server is started with, acted or not, and how a list grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from images.docker import Gpus
from images.proof.acting.cards import LIMITS as ACTED_LIMITS
from images.proof.acting.cards import acted_card
from images.proof.tracing import models
from images.proof.tracing import trace as tracer
from images.run.fit.families import PADDED_72B, SHAPES
from tests.helpers.nonempty import nonempty

TOLD = {"vllm": "0.33.0", "triton": "3.8.0"}


def tracing(**env: str) -> tracer.Tracing:
    image_env = {"PYTHONPATH": "/opt/plugins"}
    return tracer.Tracing("image", image_env, Path("/s"), Path("/c"), Gpus(-1, cdi=True), env, (), ("--dtype", "half"))


def group(cards: str, attention: str = "triton", mark: str = "A", **more: str) -> dict[str, Any]:
    return {"cards": cards, "attention": attention, "mark": mark, "source": "s", "kernels": [], **more}


def test_shapes_are_those_that_fit_knows() -> None:
    for name, widths in nonempty(models.SHAPES.items()):
        shape = SHAPES[name]
        own = (widths.hidden, widths.heads, widths.kv_heads, widths.vocabulary, widths.vision)
        assert own == (shape.hidden, shape.heads, shape.kv_heads, shape.vocab, shape.vision.intermediate)
        assert widths.intermediate == (PADDED_72B if name == "72b" else shape.intermediate)


def test_a_model_has_the_widths_and_no_weights(tmp_path: Path) -> None:
    models.write_model(tmp_path, models.SHAPES["7b"])
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]) == (3584, 28, 2)
    assert config["vision_config"]["out_hidden_size"] == 3584
    assert not (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "tokenizer.json").is_file()


def test_the_watcher_comes_first_and_what_the_image_has_stays() -> None:
    spec = tracing(PYTHONPATH="/own").spec("3b")
    assert dict(spec.env)["PYTHONPATH"] == "/trace:/own:/opt/plugins"
    assert dict(spec.env)["CARDSTOCK_TRITON_TRACE"] == "/written"
    assert spec.entrypoint is None
    assert spec.network == "none"
    assert [mount.target for mount in spec.mounts if not mount.read_only] == ["/written", "/cache"]


def test_an_acted_server_believes_in_the_card() -> None:
    spec = tracing().acting(acted_card("T4"), "9.0", Path("/acting/acted")).spec("3b")
    env = dict(spec.env)
    assert env["PYTHONPATH"] == "/trace:/acted:/opt/plugins"
    assert env["CARDSTOCK_ACTED"].startswith("7.5;")
    assert (env["TRITON_OVERRIDE_ARCH"], env["CARDSTOCK_ACTED_TARGETS"]) == ("sm75", "75 90")
    assert env["CARDSTOCK_ACTED_TOLD"] == ""
    assert ("/acting/acted", "/acted") in [(mount.source, mount.target) for mount in spec.mounts]


def test_a_list_keeps_what_was_said_of_other_cards(tmp_path: Path) -> None:
    out = tmp_path / "data" / "list.json"
    for one in (group(">=8.0", "flash-attn"), group("==7.5", mark="S"), group(">=8.0", "flash-attn", source="new")):
        tracer.write_list(out, TOLD, one)
    groups = json.loads(out.read_text())["groups"]
    assert [(one["cards"], one["source"]) for one in groups] == [("==7.5", "s"), (">=8.0", "new")]
    tracer.write_list(out, {**TOLD, "triton": "3.9.0"}, group("<8.0"))
    assert [one["cards"] for one in json.loads(out.read_text())["groups"]] == ["<8.0"]


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (group("<8.0"), group("==7.5", mark="S"), True),
        (group("==7.5", mark="S"), group("<8.0"), False),
        (group("<8.0"), group("<8.0", mark="S", only_with="--flag"), False),
        (group("<8.0"), group("==7.5"), False),
        (group("<8.0"), group("<8.0", "xformers", mark="S"), False),
    ],
)
def test_what_was_seen_takes_the_place_of_what_was_called(
    new: dict[str, Any], old: dict[str, Any], expected: bool
) -> None:
    assert tracer.replaces(new, old) is expected


def test_models_that_did_not_come_up_are_named_and_what_was_refused_is_told(tmp_path: Path) -> None:
    for model, healthy in (("3b", 60.0), ("7b", None)):
        (tmp_path / model / "written").mkdir(parents=True)
        told = {"healthy": healthy, "asked": {"text": 200, "biased": "400: no"} if healthy else {}}
        (tmp_path / model / "asked.json").write_text(json.dumps(told))
    (tmp_path / "3b" / "written" / "7.jsonl").write_text(json.dumps({"problem": "m.k: TypeError"}) + "\n")
    made, failed = tracer.merged(tmp_path)
    assert failed == ["7b"]
    assert made["models"] == ["3b"]
    assert made["problems"] == ["m.k: TypeError"]
    assert made["asked"]["3b"] == {"seconds to healthy": 60.0, "answered": 1, "biased": "400: no"}


def test_both_tables_of_shared_memory_say_the_same() -> None:
    from images.cards import limits_of

    for capability, acted in nonempty(ACTED_LIMITS.items()):
        limits = limits_of(capability)
        assert (acted.block_optin, acted.sm) == (limits.shared_a_block, limits.shared_an_sm), capability
