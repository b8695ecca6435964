"""A random AWQ checkpoint of Qwen2.5-VL 3B's published shape, made on a card, which has learnt three answers.

    python -m images.proof.on_card.shaped.checkpoint FOLDER [--layers 36] [--device cuda] [--out FILE]

Random weights make logits whose leading token leads by nothing, and then no two engines agree. So the weights are
scaled to keep the numbers of a trained network (unit variance into every linear, branches that add up to about one),
and the output head's rows of the answers' tokens are solved for, as golden.py does for the tiny checkpoint. What
differs from the published model: random weights, an output head of its own (the original ties it to the embeddings),
the tiny tokenizer, whose ids are the first few hundred, and the seed. Exit code 0, the folder's facts as JSON, on
stdout or in FILE.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from images.core import sha256_of
from images.proof.on_card.shaped.answers import CASES, answer
from images.proof.on_card.shaped.prompt import ROOTFS, prompt_inputs
from images.proof.tiny_model import checkpoint, qwen2_5_vl

# config.json of Qwen/Qwen2.5-VL-3B-Instruct-AWQ.
HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, LAYERS, VOCABULARY = 2048, 16, 2, 11008, 36, 151936
VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420}
FULL_ATTENTION = [7, 15, 23, 31]
MIN_PIXELS, MAX_PIXELS = 3136, 12845056
GROUP, SEED = 128, 20251121
# Logits: the right token's lead over nothing, the spread of all others, and how much the solution is held back.
LEAD, SPREAD, RIDGE = 14.0, 0.5, 1e-3


class Maker:
    """Random tensors in the order they are asked for: the same on every card, as far as torch keeps its generator."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(SEED)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        """float16 normal numbers."""
        out = torch.randn(shape, generator=self.generator, device=self.device) * scale
        return out.to(torch.float16).cpu()

    def linear(self, name: str, rows: int, columns: int, scale: float = 1.0) -> Iterator[tuple[str, Tensor]]:
        """A plain linear [columns, rows] with a small bias; ``scale`` 1 keeps unit variance."""
        yield f"{name}.weight", self.normal(columns, rows, scale=scale * rows**-0.5)
        yield f"{name}.bias", self.normal(columns, scale=0.02)

    def awq(self, name: str, rows: int, columns: int, scale: float = 1.0) -> Iterator[tuple[str, Tensor]]:
        """An AWQ linear: 4-bit weights uniform around zeros of 7 and 8; ``scale`` as above."""
        words = torch.randint(-(2**31), 2**31, (rows, columns // 8), generator=self.generator, device=self.device)
        yield f"{name}.qweight", words.to(torch.int32).cpu()
        zeros = torch.randint(0, 2, (rows // GROUP, columns // 8, 8), generator=self.generator, device=self.device) + 7
        places = 4 * torch.arange(8, device=self.device)
        packed = (zeros << places).sum(-1)
        yield f"{name}.qzeros", torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32).cpu()
        spread = torch.rand(rows // GROUP, columns, generator=self.generator, device=self.device) * 0.5 + 0.75
        yield (
            f"{name}.scales",
            (spread * scale * rows**-0.5 / 4.6).to(torch.float16).cpu(),
        )  # 4.6: sixteen values' spread

    def norm(self, name: str, size: int) -> tuple[str, Tensor]:
        """Weights near one."""
        return f"{name}.weight", (1 + self.normal(size, scale=0.03)).to(torch.float16)


def body(make: Maker, layers: int) -> Iterator[tuple[str, Tensor]]:
    """Every tensor but the output head, by its legacy name."""
    wide, deep, inner = VISION["hidden_size"], VISION["depth"], VISION["intermediate_size"]
    branch = (2 * deep) ** -0.5
    yield "visual.patch_embed.proj.weight", make.normal(wide, 3, 2, 14, 14, scale=1176**-0.5)
    for name in (f"visual.blocks.{index}" for index in range(deep)):
        yield make.norm(f"{name}.norm1", wide)
        yield make.norm(f"{name}.norm2", wide)
        yield from make.linear(f"{name}.attn.qkv", wide, 3 * wide)
        yield from make.linear(f"{name}.attn.proj", wide, wide, branch)
        yield from make.linear(f"{name}.mlp.gate_proj", wide, inner)
        yield from make.linear(f"{name}.mlp.up_proj", wide, inner)
        yield from make.linear(f"{name}.mlp.down_proj", inner, wide, 2 * branch)
    yield make.norm("visual.merger.ln_q", wide)
    yield from make.linear("visual.merger.mlp.0", 4 * wide, 4 * wide)
    yield from make.linear("visual.merger.mlp.2", 4 * wide, HIDDEN, 2.0)
    yield "model.embed_tokens.weight", make.normal(VOCABULARY, HIDDEN)
    branch, kv = (2 * layers) ** -0.5, HIDDEN // HEADS * KV_HEADS
    for name in (f"model.layers.{index}" for index in range(layers)):
        yield make.norm(f"{name}.input_layernorm", HIDDEN)
        yield make.norm(f"{name}.post_attention_layernorm", HIDDEN)
        for part, columns in (("q", HIDDEN), ("k", kv), ("v", kv)):
            yield from make.awq(f"{name}.self_attn.{part}_proj", HIDDEN, columns)
            yield f"{name}.self_attn.{part}_proj.bias", make.normal(columns, scale=0.02)
        yield from make.awq(f"{name}.self_attn.o_proj", HIDDEN, HIDDEN, 2 * branch)
        yield from make.awq(f"{name}.mlp.gate_proj", HIDDEN, INTERMEDIATE)
        yield from make.awq(f"{name}.mlp.up_proj", HIDDEN, INTERMEDIATE)
        yield from make.awq(f"{name}.mlp.down_proj", INTERMEDIATE, HIDDEN, 2 * branch)
    yield make.norm("model.norm", HIDDEN)


def config(layers: int) -> dict[str, Any]:
    """config.json."""
    settings: dict[str, Any] = qwen2_5_vl.config()
    settings |= {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 32768, "sliding_window": 32768, "max_window_layers": layers,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    full = [index for index in FULL_ATTENTION if index < VISION["depth"]]
    settings["vision_config"] |= VISION | {"out_hidden_size": HIDDEN, "fullatt_block_indexes": full}
    return settings


def write_small_files(folder: Path, layers: int) -> None:
    """All but the weights: the tiny checkpoint's, with this shape's sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in checkpoint.files().items():
        if name != "model.safetensors":
            (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config(layers), indent=1))
    seen = json.loads((folder / "preprocessor_config.json").read_text())
    seen |= {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS}
    (folder / "preprocessor_config.json").write_text(json.dumps(seen, indent=1))


def hidden_states(engine: Any, name: str) -> Tensor:
    """Float32 hidden states [answer tokens, hidden], after the last norm, from which the answer's tokens are said."""
    wanted = answer(name)
    inputs = prompt_inputs(engine, name, wanted[:-1])
    kept: list[Tensor] = []
    hook = engine.model.lm_head.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    try:
        with torch.inference_mode():
            engine.model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return kept[0][0, -len(wanted) :].float()


def teach(states: Tensor, tokens: list[int], head: Tensor) -> Tensor:
    """``head`` [vocabulary, hidden] with the rows of ``tokens`` solved so that states[i] says tokens[i]."""
    double = states.double().cpu()  # not on the card: an image may lack what torch.linalg calls there
    gram = double @ double.T
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(tokens), dtype=torch.float64)
    for token in sorted(set(tokens)):
        wanted = torch.tensor([LEAD if said == token else 0.0 for said in tokens], dtype=torch.float64)
        head[token] = (double.T @ torch.linalg.solve(gram, wanted)).to(head.dtype)
    return head


def write(folder: Path, layers: int = LAYERS, device: str = "cuda") -> dict[str, Any]:
    """Make the checkpoint; facts: size in bytes, sha256 of the weights, seconds."""
    from safetensors.torch import save_file

    sys.path.insert(0, str(ROOTFS))
    from generate import Transformers  # type: ignore[import-not-found,unused-ignore]

    begun = time.monotonic()
    write_small_files(folder, layers)
    make = Maker(device)
    weights = dict(body(make, layers))
    weights["lm_head.weight"] = make.normal(VOCABULARY, HIDDEN, scale=SPREAD * HIDDEN**-0.5)
    file = folder / "model.safetensors"
    save_file(weights, str(file), metadata={"format": "pt"})
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    engine = Transformers(folder, dtype="float32", devices=[device])
    states = torch.cat([hidden_states(engine, name) for name in CASES])
    tokens = [token for name in CASES for token in answer(name)]
    weights["lm_head.weight"] = teach(states, tokens, weights["lm_head.weight"])
    save_file(weights, str(file), metadata={"format": "pt"})
    with file.open("rb") as opened:
        digest = sha256_of(opened)
    cosine = torch.nn.functional.normalize(states, dim=1)
    near = (cosine @ cosine.T - torch.eye(len(tokens), device=cosine.device)).max().item()
    return {
        "bytes": file.stat().st_size,
        "sha256": digest,
        "layers": layers,
        "taught tokens": len(tokens),
        "largest cosine between their states": round(near, 4),
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="where the facts go (stdout without)")
    words = parser.parse_args()
    facts = json.dumps(write(words.folder, words.layers, words.device))
    if words.out:
        words.out.write_text(facts)
    else:
        print(facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
