"""The tiny Qwen3-VL: normed heads, interleaved mrope, learned positions in the tower, and deepstack from one block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from images.proof.tiny_model import qwen2_5_vl as base
from images.proof.tiny_model.weights import (
    HEAD_DIM,
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

PATCH = 16
# Rows of learned positions: a square of 8 by 8, stretched over each picture.
POSITIONS = 64
TAPS = (0,)
HALF = (0.5, 0.5, 0.5)
_TEXT = (
    "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act rms_norm_eps"
    " initializer_range attention_dropout max_position_embeddings use_cache vocab_size bos_token_id eos_token_id"
).split()


def _vision_block(name: str) -> Iterator[tuple[str, Array]]:
    yield from layer_norm(f"{name}.norm1", VISION_HIDDEN)
    yield from layer_norm(f"{name}.norm2", VISION_HIDDEN)
    yield from linear(f"{name}.attn.qkv", 3 * VISION_HIDDEN, VISION_HIDDEN, 9)
    yield from linear(f"{name}.attn.proj", VISION_HIDDEN, VISION_HIDDEN, 9)
    yield from linear(f"{name}.mlp.linear_fc1", VISION_INTERMEDIATE, VISION_HIDDEN, 9)
    yield from linear(f"{name}.mlp.linear_fc2", VISION_HIDDEN, VISION_INTERMEDIATE, 9)


def _merger(name: str, norm: int) -> Iterator[tuple[str, Array]]:
    merged = VISION_HIDDEN * MERGE * MERGE
    yield from layer_norm(f"{name}.norm", norm)
    yield from linear(f"{name}.linear_fc1", merged, merged, 10)
    yield from linear(f"{name}.linear_fc2", HIDDEN, merged, 9)


def tensors() -> dict[str, Array]:
    """Every tensor but the output head, by its published name."""
    see = "model.visual"
    out: dict[str, Array] = {}
    patch = (VISION_HIDDEN, 3, TEMPORAL, PATCH, PATCH)
    for name, shape, shift in (
        (f"{see}.patch_embed.proj.weight", patch, 11),
        (f"{see}.patch_embed.proj.bias", (VISION_HIDDEN,), 10),
        (f"{see}.pos_embed.weight", (POSITIONS, VISION_HIDDEN), 8),
    ):
        out[name] = spread(name, shape, shift)
    for index in range(VISION_DEPTH):
        out.update(_vision_block(f"{see}.blocks.{index}"))
    out.update(_merger(f"{see}.merger", VISION_HIDDEN))
    for index in range(len(TAPS)):
        out.update(_merger(f"{see}.deepstack_merger_list.{index}", VISION_HIDDEN * MERGE * MERGE))
    return out | text_model("model.language_model", norms=True)


def config() -> dict[str, Any]:
    """Content of config.json, in the form of the published ones."""
    flat = base.config()
    text = {name: flat[name] for name in _TEXT} | {
        "model_type": "qwen3_vl_text", "head_dim": HEAD_DIM, "attention_bias": False, "rope_theta": 5000000.0,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default"},
        "dtype": "float16", "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {
        "model_type": "qwen3_vl", "depth": VISION_DEPTH, "hidden_size": VISION_HIDDEN, "num_heads": VISION_HEADS,
        "hidden_act": "gelu_pytorch_tanh", "intermediate_size": VISION_INTERMEDIATE, "in_channels": 3,
        "initializer_range": 0.02, "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": TEMPORAL,
        "num_position_embeddings": POSITIONS, "deepstack_visual_indexes": list(TAPS), "out_hidden_size": HIDDEN,
    }  # fmt: skip
    kept = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id", "quantization_config")
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "tie_word_embeddings": False,
        "dtype": "float16",
        "text_config": text,
        "vision_config": vision,
        **{name: flat[name] for name in kept},
    }


def preprocessor() -> dict[str, Any]:
    """Content of preprocessor_config.json."""
    return {
        "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor",
        "image_mean": list(HALF), "image_std": list(HALF), "patch_size": PATCH, "merge_size": MERGE,
        "temporal_patch_size": TEMPORAL, "size": {"shortest_edge": base.MIN_PIXELS, "longest_edge": base.MAX_PIXELS},
    }  # fmt: skip


def video_preprocessor() -> dict[str, Any]:
    """Content of video_preprocessor_config.json, which the family's processor wants too."""
    return {**preprocessor(), "video_processor_type": "Qwen3VLVideoProcessor"}
