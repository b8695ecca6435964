"""The AWQ loader, with torch and transformers: run inside a built image by tests/engine/test_inside.py.

By hand: PYTHON_WITH_TORCH -m pytest --noconftest tests/inside
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from images.proof.tiny_model import checkpoint, golden, weights

sys.path.insert(0, str(golden.ROOTFS))
import awq_loader  # type: ignore[import-not-found,unused-ignore]
import canary  # type: ignore[import-not-found,unused-ignore]

GOLDEN: dict[str, Any] = json.loads((checkpoint.GOLDEN / "golden.json").read_text())
Save = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint.write_checkpoint(tmp_path / "tiny").folder


@pytest.fixture
def save(folder: Path) -> Save:
    """Rewrite the checkpoint with other tensors and settings."""

    def write(tensors: dict[str, Any] | None = None, shards: int = 1, **config: Any) -> Path:
        found = checkpoint.QWEN2_5.tensors() if tensors is None else tensors
        settings = {**json.loads((folder / "config.json").read_text()), **config}
        (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
        if shards == 1:
            (folder / "model.safetensors").write_bytes(weights.safetensors_bytes(found))
            return folder
        (folder / "model.safetensors").unlink()
        names = sorted(found)
        where = {name: f"model-{1 + at % shards}.safetensors" for at, name in enumerate(names)}
        for shard in set(where.values()):
            part = {name: found[name] for name in names if where[name] == shard}
            (folder / shard).write_bytes(weights.safetensors_bytes(part))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        return folder

    return write


def load(folder: Path, **how: Any) -> Any:
    return awq_loader.load_model(folder, **{"dtype": torch.float32, **how})


def worst(model: Any) -> float:
    """The largest relative error against golden over all cases."""
    checks = [
        canary.compare("x", canary.forward_logits(model, GOLDEN, case, "cpu"), canary.decode_logits(case))
        for case in GOLDEN["cases"]
    ]
    return float(max(check.measured["relative"] for check in checks))


def plain() -> dict[str, Any]:
    """The same weights, unquantised; float16 holds them exactly."""
    out: dict[str, Any] = {}
    found: dict[str, Any] = checkpoint.QWEN2_5.tensors()
    for name, array in found.items():
        base, _, leaf = name.rpartition(".")
        if leaf == "qweight":
            zeros = np.repeat(weights.unpack(found[base + ".qzeros"]), weights.GROUP, axis=0)
            scales = np.repeat(found[base + ".scales"], weights.GROUP, axis=0).astype(np.float32)
            out[base + ".weight"] = ((weights.unpack(array) - zeros) * scales).T.astype(np.float16)
        elif leaf not in ("qzeros", "scales"):
            out[name] = array
    return out


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_packed_linear_is_the_unpacked_one(dtype: str) -> None:
    rng = np.random.default_rng(1)
    q, z = rng.integers(0, 16, (256, 64)), rng.integers(0, 16, (2, 64))
    scales = rng.uniform(0.01, 0.02, (2, 64)).astype(np.float16)
    words = (torch.from_numpy(weights.pack(values)) for values in (q, z))
    linear = awq_loader.AwqLinear(*words, torch.from_numpy(scales))
    weight = (q - np.repeat(z, 128, axis=0)) * np.repeat(scales, 128, axis=0).astype(np.float64)
    x = torch.from_numpy(rng.normal(size=(3, 256))).to(getattr(torch, dtype))
    out = linear(x).double().numpy()
    wanted = x.double().numpy() @ weight
    assert (
        np.abs(out - wanted).max() / np.abs(wanted).max() < {"float32": 1e-6, "float16": 3e-3, "bfloat16": 2e-2}[dtype]
    )


@pytest.mark.parametrize("dequantised", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_ways_to_hold_the_weights_give_the_golden_logits(folder: Path, attention: str, dequantised: bool) -> None:
    model = load(folder, attention=attention, dequantised=dequantised)
    packed = sum(isinstance(module, awq_loader.AwqLinear) for module in model.modules())
    assert packed == (0 if dequantised else 7 * weights.LAYERS)
    assert worst(model) < 1e-5


def test_shards_with_a_linears_parts_apart(save: Save) -> None:
    assert worst(load(save(shards=3))) < 1e-5


def test_a_checkpoint_that_is_not_quantised(save: Save) -> None:
    assert worst(load(save(plain(), quantization_config=None))) < 1e-5


def test_names_as_newer_transformers_save_them(save: Save) -> None:
    new = {}
    for name, array in checkpoint.QWEN2_5.tensors().items():
        text = name.replace("model.", "model.language_model.") if name.startswith("model.") else name
        new[f"model.{name}" if name.startswith("visual.") else text] = array
    assert worst(load(save(new))) < 1e-5


def test_a_tied_head_is_the_embedding_table(save: Save) -> None:
    tensors = checkpoint.QWEN2_5.tensors()
    del tensors["lm_head.weight"]
    model = load(save(tensors, tie_word_embeddings=True))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not model.lm_head.weight.is_meta


def test_an_untied_head_must_be_there(save: Save) -> None:
    tensors = checkpoint.QWEN2_5.tensors()
    del tensors["lm_head.weight"]
    with pytest.raises(awq_loader.LoadError, match=r"lacks 1 tensors: lm_head\.weight"):
        load(save(tensors))


def test_every_missing_tensor_is_named(save: Save) -> None:
    tensors = checkpoint.QWEN2_5.tensors()
    del tensors["visual.blocks.1.attn.qkv.weight"], tensors["model.layers.0.mlp.up_proj.scales"]
    with pytest.raises(awq_loader.LoadError, match="lacks 3 tensors") as caught:
        load(save(tensors))
    assert "visual.blocks.1.attn.qkv.weight" in str(caught.value)
    assert "mlp.up_proj (only qweight, qzeros)" in str(caught.value)


@pytest.mark.parametrize("name", ["model.layers.2.input_layernorm.weight", "model.layers.9.mlp.up_proj.qweight"])
def test_an_unexpected_tensor_is_named(save: Save, name: str) -> None:
    tensors = checkpoint.QWEN2_5.tensors()
    base = name.rpartition(".")[0]
    leaves = ("qweight", "qzeros", "scales") if name.endswith("qweight") else ("weight",)
    for leaf in leaves:
        tensors[f"{base}.{leaf}"] = np.zeros((8, 8), np.int32 if leaf[0] == "q" else np.float16)
    with pytest.raises(awq_loader.LoadError, match=r"has unexpected 1 tensors: model\.layers\.\d"):
        load(save(tensors))


def test_tables_that_models_make_themselves_may_be_there(save: Save) -> None:
    tensors = {**checkpoint.QWEN2_5.tensors(), "model.rotary_emb.inv_freq": np.zeros(32, np.float16)}
    assert worst(load(save(tensors))) < 1e-5


@pytest.mark.parametrize("dequantised", [True, False])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.down_proj.qweight"])
def test_a_wrong_shape_names_the_tensor(save: Save, name: str, dequantised: bool) -> None:
    tensors = checkpoint.QWEN2_5.tensors()
    tensors[name] = tensors[name][:256] if tensors[name].ndim == 2 else tensors[name][:-1]
    with pytest.raises(awq_loader.LoadError, match=name.rpartition(".")[0]):
        load(save(tensors), dequantised=dequantised)


def test_another_quantisation_is_refused(save: Save) -> None:
    with pytest.raises(awq_loader.LoadError, match="gemm layout"):
        load(save(quantization_config={"quant_method": "awq", "bits": 8, "version": "gemm"}))


def test_a_missing_shard_is_named(save: Save) -> None:
    folder = save(shards=3)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(awq_loader.LoadError, match=r"lacks model-2\.safetensors"):
        load(folder)


def test_a_float32_vision_tower_feeds_a_float16_text_model(folder: Path) -> None:
    """What cards below 8.0 get: inputs go up, outputs come down, by themselves, in every version of transformers."""
    model = load(folder, dtype=torch.float16, vision=torch.float32)
    assert {p.dtype for name, p in model.named_parameters() if "visual" in name} == {torch.float32}
    assert {p.dtype for name, p in model.named_parameters() if "visual" not in name} == {torch.float16}
    for case in GOLDEN["cases"]:
        assert canary.greedy_tokens(model, GOLDEN, case, "cpu") == case["tokens"]
    assert worst(model) < 5e-3


def test_the_vision_tower_goes_up_only_below_8_0(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu, half, brain = torch.device("cuda:0"), torch.device("cpu"), torch.float16, torch.bfloat16
    for capability, wanted in (((7, 5), torch.float32), ((8, 0), half), ((12, 0), half)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert awq_loader.vision_dtype(half, cuda) == wanted
        assert awq_loader.vision_dtype(brain, cuda) == brain
    assert awq_loader.vision_dtype(half, cpu) == half


def test_layers_are_shared_in_order(folder: Path) -> None:
    model = load(folder)
    place = awq_loader.placement(model, ["a", "b"])
    prefix = awq_loader.renamer(model)
    assert place(prefix("model.layers.0.mlp.up_proj.qweight")) == "a"
    assert place(prefix("model.layers.1.mlp.up_proj.qweight")) == "b"
    assert place(prefix("visual.blocks.1.norm1.weight")) == place(prefix("model.embed_tokens.weight")) == "a"
    assert place("lm_head.weight") == place(prefix("model.norm.weight")) == "b"


def test_a_layer_is_placed_as_one_and_nothing_is_left_out(folder: Path) -> None:
    """A layer cut into its linears would get its rotary tables on the first card only."""
    model = load(folder)
    where = awq_loader.device_map(model, awq_loader.placement(model, ["a", "b"]))
    prefix = awq_loader.renamer(model)
    assert where[prefix("model.layers.0.x").removesuffix(".x")] == "a"
    assert where[prefix("model.layers.1.x").removesuffix(".x")] == "b"
    assert not any("self_attn.q_proj" in name for name in where)
    for name, _ in model.named_parameters():
        assert any(name.startswith(f"{key}.") for key in where), name


def test_making_modules_elsewhere_is_as_before() -> None:
    with awq_loader.parameters_on_meta():
        assert torch.nn.Linear(2, 2).weight.is_meta
    assert not torch.nn.Linear(2, 2).weight.is_meta


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_weights_that_can_hold_code_are_refused_with_the_reason(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(awq_loader.LoadError, match=rf"{name}: only safetensors .* can run code"):
        load(folder)


@pytest.mark.parametrize("name", ["pytorch_model-1.bin", "../model.safetensors", "/model.safetensors"])
def test_an_index_names_safetensors_of_its_own_folder_only(save: Save, name: str) -> None:
    folder = save(shards=2)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(awq_loader.LoadError, match="only safetensors files of the folder itself"):
        load(folder)


MARK = """
import pathlib
pathlib.Path({mark!r}).write_text("it ran")
"""


def test_code_of_a_models_repository_never_runs(save: Save, tmp_path: Path) -> None:
    from generate import Transformers  # type: ignore[import-not-found,unused-ignore]

    mark = tmp_path / "ran"
    names = {name: f"own.{name}" for name in ("AutoConfig", "AutoModelForImageTextToText", "AutoTokenizer",
                                              "AutoImageProcessor", "AutoProcessor")}  # fmt: skip
    folder = save(auto_map=names)
    (folder / "own.py").write_text(MARK.format(mark=str(mark)))
    for settings in ("tokenizer_config.json", "preprocessor_config.json"):
        told = json.loads((folder / settings).read_text())
        (folder / settings).write_text(json.dumps({**told, "auto_map": names}))
    assert Transformers(folder, dtype="float32", devices=["cpu"]).healthy
    assert not mark.exists()


@pytest.mark.parametrize(
    "config",
    [{"_attn_implementation": "evil/kernel"}, {"vision_config": {"_attn_implementation": "evil/kernel"}},
     {"text_config": {"sub": [{"experts_implementation": "evil/kernel:x"}]}}],
)  # fmt: skip
def test_a_config_that_names_kernels_of_a_repository_is_refused(save: Save, config: dict[str, Any]) -> None:
    with pytest.raises(awq_loader.LoadError, match="asks for code of another repository"):
        load(save(**config))
