"""The tiny checkpoint without AWQ has the weights of the quantised one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from images.proof.tiny_model.checkpoint import QWEN2_5
from images.proof.tiny_model.plain import plain_tensors, write_plain
from images.proof.tiny_model.weights import GROUP, unpack


def test_the_plain_checkpoint_has_the_weights_of_the_quantised_one(tmp_path: Path) -> None:
    tensors = QWEN2_5.tensors()
    plain = plain_tensors(tensors)
    assert not [name for name in plain if name.endswith((".qweight", ".qzeros", ".scales"))]
    name = "model.layers.1.mlp.down_proj"
    words, zeros = (np.asarray(tensors[f"{name}.{part}"], dtype=np.int32) for part in ("qweight", "qzeros"))
    scales = np.asarray(tensors[f"{name}.scales"], dtype=np.float64).repeat(GROUP, axis=0)
    exact = (unpack(words) - unpack(zeros).repeat(GROUP, axis=0)) * scales
    assert np.array_equal(plain[f"{name}.weight"].astype(np.float64), exact.T)
    assert plain[f"{name}.weight"].shape == (256, 512)
    write_plain(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["torch_dtype"] == "float16"
    assert (tmp_path / "model.safetensors").stat().st_size > 1e6
    assert (tmp_path / "tokenizer.json").is_file()
