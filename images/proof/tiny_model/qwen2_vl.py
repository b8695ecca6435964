"""The tiny Qwen2-VL: Qwen2.5-VL's decoder, a tower of full attention with biased norms and an MLP of two matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from images.proof.tiny_model import qwen2_5_vl as base
from images.proof.tiny_model.weights import (
    HIDDEN,
    MERGE,
    TEMPORAL,
    VISION_DEPTH,
    VISION_HEADS,
    VISION_HIDDEN,
    VISION_INTERMEDIATE,
    Array,
    layer_norm,
    linear,
    spread,
    text_model,
)


def _vision_block(name: str) -> Iterator[tuple[str, Array]]:
    yield from layer_norm(f"{name}.norm1", VISION_HIDDEN)
    yield from layer_norm(f"{name}.norm2", VISION_HIDDEN)
    yield from linear(f"{name}.attn.qkv", 3 * VISION_HIDDEN, VISION_HIDDEN, 9)
    yield from linear(f"{name}.attn.proj", VISION_HIDDEN, VISION_HIDDEN, 9)
    yield from linear(f"{name}.mlp.fc1", VISION_INTERMEDIATE, VISION_HIDDEN, 9)
    yield from linear(f"{name}.mlp.fc2", VISION_HIDDEN, VISION_INTERMEDIATE, 9)


def tensors() -> dict[str, Array]:
    """Every tensor but the output head, by its published name."""
    merged = VISION_HIDDEN * MERGE * MERGE
    name = "visual.patch_embed.proj.weight"
    out: dict[str, Array] = {name: spread(name, (VISION_HIDDEN, 3, TEMPORAL, base.PATCH, base.PATCH), 11)}
    for index in range(VISION_DEPTH):
        out.update(_vision_block(f"visual.blocks.{index}"))
    out.update(layer_norm("visual.merger.ln_q", VISION_HIDDEN))
    out.update(linear("visual.merger.mlp.0", merged, merged, 10))
    out.update(linear("visual.merger.mlp.2", HIDDEN, merged, 9))
    return out | text_model("model")


def config() -> dict[str, Any]:
    """Content of config.json, in the flat form of the published ones."""
    vision = {
        "model_type": "qwen2_vl", "depth": VISION_DEPTH, "embed_dim": VISION_HIDDEN, "hidden_size": HIDDEN,
        "hidden_act": "quick_gelu", "mlp_ratio": VISION_INTERMEDIATE // VISION_HIDDEN, "num_heads": VISION_HEADS,
        "in_chans": 3, "in_channels": 3, "patch_size": base.PATCH, "spatial_patch_size": base.PATCH,
        "spatial_merge_size": MERGE, "temporal_patch_size": TEMPORAL,
    }  # fmt: skip
    return {
        **base.config(),
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "vision_config": vision,
    }


def preprocessor() -> dict[str, Any]:
    """Content of preprocessor_config.json."""
    return {**base.preprocessor(), "processor_class": "Qwen2VLProcessor"}
