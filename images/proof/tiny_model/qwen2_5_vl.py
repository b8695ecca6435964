"""The tiny Qwen2.5-VL: two vision blocks, one windowed and one full, in the original form of config.json and names."""

from __future__ import annotations

from collections.abc import Iterator

from images.proof.tiny_model import tokenizer
from images.proof.tiny_model.weights import (
    GROUP,
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    KV_HEADS,
    LAYERS,
    MERGE,
    TEMPORAL,
    VISION_DEPTH,
    VISION_HEADS,
    VISION_HIDDEN,
    VISION_INTERMEDIATE,
    Array,
    linear,
    ones,
    spread,
    text_model,
)

PATCH, WINDOW = 14, 112
MAX_POSITIONS = 4096
MIN_PIXELS, MAX_PIXELS = 56 * 56, 224 * 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _vision_block(name: str) -> Iterator[tuple[str, Array]]:
    yield ones(f"{name}.norm1", VISION_HIDDEN)
    yield ones(f"{name}.norm2", VISION_HIDDEN)
    yield from linear(f"{name}.attn.qkv", 3 * VISION_HIDDEN, VISION_HIDDEN, 9)
    yield from linear(f"{name}.attn.proj", VISION_HIDDEN, VISION_HIDDEN, 9)
    yield from linear(f"{name}.mlp.gate_proj", VISION_INTERMEDIATE, VISION_HIDDEN, 10)
    yield from linear(f"{name}.mlp.up_proj", VISION_INTERMEDIATE, VISION_HIDDEN, 10)
    yield from linear(f"{name}.mlp.down_proj", VISION_HIDDEN, VISION_INTERMEDIATE, 10)


def tensors() -> dict[str, Array]:
    """Every tensor but the output head, by its legacy name."""
    merged = VISION_HIDDEN * MERGE * MERGE
    patch = (VISION_HIDDEN, 3, TEMPORAL, PATCH, PATCH)
    out: dict[str, Array] = {"visual.patch_embed.proj.weight": spread("visual.patch_embed.proj.weight", patch, 11)}
    for index in range(VISION_DEPTH):
        out.update(_vision_block(f"visual.blocks.{index}"))
    out.update([ones("visual.merger.ln_q", VISION_HIDDEN)])
    out.update(linear("visual.merger.mlp.0", merged, merged, 10))
    out.update(linear("visual.merger.mlp.2", HIDDEN, merged, 9))
    return out | text_model("model")


def config() -> dict[str, object]:
    """Content of config.json, in the flat form of the first Qwen2.5-VL releases."""
    ids = tokenizer.special_ids()
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "vocab_size": tokenizer.vocab_size(), "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "hidden_act": "silu", "rms_norm_eps": 1e-06, "initializer_range": 0.02, "attention_dropout": 0.0,
        "max_position_embeddings": MAX_POSITIONS, "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "use_cache": True, "use_sliding_window": False, "sliding_window": MAX_POSITIONS, "max_window_layers": LAYERS,
        "tie_word_embeddings": False, "torch_dtype": "float16",
        "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"], "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {
            "model_type": "qwen2_5_vl", "depth": VISION_DEPTH, "hidden_size": VISION_HIDDEN, "hidden_act": "silu",
            "intermediate_size": VISION_INTERMEDIATE, "num_heads": VISION_HEADS, "in_chans": 3,
            "out_hidden_size": HIDDEN, "patch_size": PATCH, "spatial_patch_size": PATCH, "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL, "window_size": WINDOW, "fullatt_block_indexes": [VISION_DEPTH - 1],
            "tokens_per_second": 2,
        },
        "quantization_config": {
            "quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": ["visual"],
        },
    }  # fmt: skip


def preprocessor() -> dict[str, object]:
    """Content of preprocessor_config.json."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
        "image_mean": list(MEAN), "image_std": list(STD), "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS,
        "patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": TEMPORAL,
    }  # fmt: skip
