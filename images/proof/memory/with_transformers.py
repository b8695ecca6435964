"""What a model of 7B's published shape really allocates on this machine's card, for images/run/fit to be held against.

    python images/proof/memory/with_transformers.py > records/cards/CARD-fit-memory.json

Random weights in bfloat16, transformers, sdpa; needs torch, transformers and a card with 40 GB, and nothing of this
project. All figures in bytes; peaks are beyond what was allocated before.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import transformers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": 3584}
TEXT = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 128000,
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
}
PICTURES = {1280: (64, 80), 4096: (128, 128), 16384: (256, 256)}
LENGTHS = (2048, 8192, 16384)


def peak(action: Any) -> tuple[int, int]:
    """Bytes allocated at the most beyond those before, and those that stay with the result alive."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = action()
    torch.cuda.synchronize()
    peaks = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    del result
    return peaks


def main() -> int:
    """Print the figures as JSON."""
    torch.cuda.init()
    free, total = torch.cuda.mem_get_info()
    torch.ones(1024, 1024, device="cuda", dtype=torch.bfloat16) @ torch.ones(
        1024, 1024, device="cuda", dtype=torch.bfloat16
    )
    record: dict[str, Any] = {
        "card": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model": "7b",
        "total": total,
        "free_at_start": free,
    }
    torch.set_default_dtype(torch.bfloat16)
    config = Qwen2_5_VLConfig(vision_config=VISION, text_config=TEXT, tie_word_embeddings=False)
    config._attn_implementation = "sdpa"
    with torch.device("cuda"):
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
    record["parameters"] = sum(p.numel() for p in model.parameters())
    record["weights"] = sum(p.numel() * p.element_size() for p in model.parameters())
    record["dtypes"] = sorted({str(p.dtype) for p in model.parameters()})
    record["allocated"] = torch.cuda.memory_allocated()
    record["vision"], record["text"] = {}, {}
    with torch.inference_mode():
        for tokens, (high, wide) in PICTURES.items():
            pixels = torch.randn(tokens * 4, 1176)
            grid = torch.tensor([[1, high, wide]])

            def see(pixels: Any = pixels, grid: Any = grid) -> Any:
                return model.model.visual(pixels.cuda(), grid_thw=grid.cuda())

            record["vision"][tokens] = peak(see)
        for length in LENGTHS:
            ids = torch.randint(0, 150000, (1, length), device="cuda")

            def read(ids: Any = ids) -> Any:
                return model(input_ids=ids, use_cache=True, logits_to_keep=1)

            record["text"][length] = peak(read)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    record["outside_torch"] = total - free - torch.cuda.memory_reserved()
    json.dump(record, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
