"""Shapes of the published models, and a checkpoint of two layers of each: what of a model its kernels can see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.proof.tiny_model import checkpoint, qwen2_5_vl


@dataclass(frozen=True)
class Widths:
    """What of a model's shape a kernel can see; ``vision`` is the width of the tower's MLP."""

    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    vision: int


# images/run/fit/families.py has the sources; the published AWQ 72B is padded from 29568.
SHAPES = {
    "3b": Widths(2048, 16, 2, 11008, 151936, 3420),
    "7b": Widths(3584, 28, 4, 18944, 152064, 3420),
    "32b": Widths(5120, 40, 8, 27648, 152064, 3456),
    "72b": Widths(8192, 64, 8, 29696, 152064, 3456),
}
LAYERS, VISION_LAYERS = 2, 2
NEW = 8.0  # from here on cards compute in bfloat16


def config(shape: Widths) -> dict[str, Any]:
    """config.json of two layers of a model."""
    settings: dict[str, Any] = qwen2_5_vl.config()
    settings |= {
        "vocab_size": shape.vocabulary, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "num_hidden_layers": LAYERS, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 32768, "sliding_window": 32768, "max_window_layers": LAYERS,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    settings["vision_config"] |= {
        "depth": VISION_LAYERS, "hidden_size": 1280, "num_heads": 16, "intermediate_size": shape.vision,
        "out_hidden_size": shape.hidden, "fullatt_block_indexes": [1],
    }  # fmt: skip
    return settings


def write_model(folder: Path, shape: Widths) -> None:
    """A checkpoint without weights: the tiny one's files with a model's widths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in checkpoint.files().items():
        if name != "model.safetensors":
            (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config(shape), indent=1))
    seen = json.loads((folder / "preprocessor_config.json").read_text())
    seen |= {"min_pixels": 3136, "max_pixels": 12845056}
    (folder / "preprocessor_config.json").write_text(json.dumps(seen, indent=1))
