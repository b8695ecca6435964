"""One process on a card: a small Qwen2.5-VL of fixed random weights, its logits and what it generates, as JSON.

    python slim_worker.py [cuda|cpu]

Started by slim_identity.py, once for each torch to compare and each CUDA_MODULE_LOADING: both are settled when torch
is imported. Exit code 0 with the results, 1 with ``{"error": ...}``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from typing import Any

TEXT = {
    "vocab_size": 2048,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.05,
    "rope_theta": 1000000.0,
    "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [8, 12, 12]},
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
VISION = {
    "depth": 4,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_heads": 4,
    "out_hidden_size": 512,
    "window_size": 112,
    "fullatt_block_indexes": [1, 3],
    "initializer_range": 0.05,
}
IMAGE, START, END = 2000, 2002, 2003
GRID = (1, 12, 16)  # frames, rows, columns of patches: 48 image tokens


def make_model(attention: str, dtype: Any, device: str) -> Any:
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config=TEXT,
        vision_config=VISION,
        image_token_id=IMAGE,
        video_token_id=2001,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    torch.manual_seed(7)
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=attention)
    return model.eval().to(device=device, dtype=dtype)


def make_inputs(dtype: Any, device: str) -> dict[str, Any]:
    import torch

    frames, rows, columns = GRID
    made = torch.Generator().manual_seed(11)
    words = torch.randint(10, 1990, (40,), generator=made).tolist()
    ids = torch.tensor([[*words[:10], START, *[IMAGE] * (frames * rows * columns // 4), END, *words[10:]]])
    pixels = torch.randn(frames * rows * columns, 3 * 2 * 14 * 14, generator=made)
    return {
        "input_ids": ids.to(device),
        "attention_mask": torch.ones_like(ids).to(device),
        "mm_token_type_ids": (ids == IMAGE).int().to(device),
        "pixel_values": pixels.to(device=device, dtype=dtype),
        "image_grid_thw": torch.tensor([GRID], device=device),
    }


def sha256_of(tensor: Any) -> str:
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def _case(attention: str, name: str, device: str) -> dict[str, Any]:
    import torch

    dtype = getattr(torch, name)
    model, inputs = make_model(attention, dtype, device), make_inputs(dtype, device)
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False).logits
        said = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return {
        "logits_sha256": sha256_of(logits),
        "shape": list(logits.shape),
        "finite": bool(torch.isfinite(logits).all()),
        "largest": float(logits.abs().max()),
        "attention": model.config._attn_implementation,
        "generated": said.tolist(),
    }


def _run(device: str) -> dict[str, Any]:
    begun = time.perf_counter()
    import torch
    import transformers

    ready = torch.ones(4, device=device).sum().item()
    started = time.perf_counter() - begun
    cases = {f"{a} {d}": _case(a, d, device) for a in ("sdpa", "eager") for d in ("float16", "bfloat16")}
    made = torch.Generator().manual_seed(3)
    square = torch.randn(64, 64, generator=made).to(device)
    return {
        "torch": torch.__version__,
        "torch_folder": os.path.dirname(torch.__file__),  # noqa: PTH120 - printed, then cut to its last part
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda,
        "module_loading": os.environ.get("CUDA_MODULE_LOADING", ""),
        "ready": ready,
        "start_seconds": round(started, 2),
        "allocated_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
        "cholesky_sha256": sha256_of(torch.linalg.cholesky(square @ square.T + 64 * torch.eye(64, device=device))),
        "cases": cases,
    }


def main() -> int:
    """Print the results, or the error that ended them."""
    try:
        print(json.dumps(_run(sys.argv[1] if len(sys.argv) > 1 else "cuda")))
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
