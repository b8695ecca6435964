"""What images/run/fit is held against on a card: models of the published shapes, and the settings they are loaded with.

No torch: the unit tests read these too, and ask fit for the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from images.proof.tiny_model import checkpoint, qwen2_5_vl

# config.json of Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct.
_TEXT: dict[str, dict[str, Any]] = {
    "3b": {
        "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "intermediate_size": 11008, "vocab_size": 151936, "max_window_layers": 36, "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152064, "max_window_layers": 28, "tie_word_embeddings": False,
    },
}  # fmt: skip
_VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420}
POSITIONS = 128000
_PIXELS_A_TOKEN = 28 * 28
# Linears of the vision tower, which no form quantises; vLLM wants each by its name for FP8.
_BLOCK = ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_MERGER = ("merger.mlp.0", "merger.mlp.2")


@dataclass(frozen=True)
class FitCase:
    """A model as fit names it ("7b-awq") and what its engine is told.

    ``utilisation`` is the part of the card that vLLM fills, ``tp`` the cards it is cut over, ``graphs`` whether CUDA
    graphs are captured (and the model compiled); the rest as in images/run/fit's Load.
    """

    model: str
    tp: int = 1
    graphs: bool = False
    length: int = 8192
    seqs: int = 4
    batched: int = 2048
    image_tokens: int = 1280
    images: int = 1
    utilisation: float = 0.6

    @property
    def name(self) -> str:
        """ "7b-awq", "7b on 2 cards", "3b with graphs"."""
        more = f" on {self.tp} cards" if self.tp > 1 else ""
        return self.model + more + (" with graphs" if self.graphs else "")

    @property
    def size(self) -> str:
        """ "3b" or "7b"."""
        return self.model.partition("-")[0]

    @property
    def form(self) -> str:
        """ "awq", "fp8"; "fp16" for weights as they are."""
        return self.model.partition("-")[2]


_FIRST = FitCase("7b-fp16")
# In the order of what is to be known first: what there is no time for is left out from the end.
CASES = (
    _FIRST,
    replace(_FIRST, model="7b-awq"),
    replace(_FIRST, model="3b-fp16"),
    replace(_FIRST, model="7b-fp8"),
    replace(_FIRST, model="3b-awq"),
    replace(_FIRST, tp=2),
    replace(_FIRST, model="3b-awq", graphs=True),
)


def config(case: FitCase) -> dict[str, Any]:
    """config.json of the case's model."""
    made: dict[str, Any] = {**qwen2_5_vl.config(), **_TEXT[case.size]}
    made |= {
        "max_position_embeddings": POSITIONS,
        "sliding_window": 32768,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }
    full = [7, 15, 23, 31]
    made["vision_config"] |= _VISION | {"out_hidden_size": made["hidden_size"], "fullatt_block_indexes": full}
    if case.form == "fp8":
        made["quantization_config"] = {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "modules_to_not_convert": _kept_by_name(),
            "ignored_layers": _kept_by_name(),
        }
    elif case.form != "awq":
        del made["quantization_config"]
    return made


def _kept_by_name() -> list[str]:
    names = [f"visual.blocks.{index}.{part}" for index in range(_VISION["depth"]) for part in _BLOCK]
    names += [f"visual.{part}" for part in _MERGER]
    return ["lm_head", *names, *(f"model.{name}" for name in names)]


def write_folder(folder: Path, case: FitCase) -> None:
    """A checkpoint's folder without weights, for an engine that makes up its own (load_format dummy)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in checkpoint.files().items():
        if name != "model.safetensors":
            (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config(case), indent=1), encoding="utf-8")
    seen = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    seen |= {"min_pixels": 3136, "max_pixels": case.image_tokens * _PIXELS_A_TOKEN}
    (folder / "preprocessor_config.json").write_text(json.dumps(seen, indent=1), encoding="utf-8")


def engine_arguments(case: FitCase, folder: Path) -> dict[str, Any]:
    """What vllm.LLM is given."""
    return {
        "model": str(folder),
        "load_format": "dummy",
        "dtype": "bfloat16" if case.form != "fp16" else "float16",
        "max_model_len": case.length,
        "max_num_seqs": case.seqs,
        "max_num_batched_tokens": case.batched,
        "gpu_memory_utilization": case.utilisation,
        "limit_mm_per_prompt": {"image": case.images, "video": 0},
        "mm_processor_kwargs": {"min_pixels": 3136, "max_pixels": case.image_tokens * _PIXELS_A_TOKEN},
        "tensor_parallel_size": case.tp,
        "enforce_eager": not case.graphs,
        "enable_prefix_caching": False,
        "mm_processor_cache_gb": 0,
        "seed": 0,
    }
