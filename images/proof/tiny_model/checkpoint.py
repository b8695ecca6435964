"""A tiny AWQ-quantised Qwen2.5-VL, the same bytes on every machine, with no download.

Two text layers, two vision blocks (one windowed, one full), mrope, AWQ "gemm" weights for the text linears,
float16 for the rest, in the original form of config.json and tensor names, which transformers 4.49 to 5.x and
vLLM 0.7 to 0.32 all read. Every weight has few enough bits to be exact in float16, bfloat16 and float32 alike,
so engines of different precision differ by their activations only. The weights are random, save those rows of the
output head that golden.py has taught to answer (`HEAD`), so that the right token leads by several logits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from images.core import UsageError
from images.proof.tiny_model import tokenizer

HEAD = Path(__file__).parent / "golden" / "head.json"
HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, LAYERS = 256, 4, 2, 512, 2
HEAD_DIM = HIDDEN // HEADS
VISION_HIDDEN, VISION_HEADS, VISION_INTERMEDIATE, VISION_DEPTH = 128, 2, 256, 2
PATCH, MERGE, TEMPORAL, WINDOW = 14, 2, 2, 112
GROUP, PACK = 128, 8
MAX_POSITIONS = 4096
MIN_PIXELS, MAX_PIXELS = 56 * 56, 224 * 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Where AWQ's "gemm" layout keeps column 8k+i of a group of eight: nibble n holds column ORDER[n].
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class CheckpointInfo:
    """A written checkpoint: its folder, sha256 by file name, size in bytes, and name to serve it under."""

    folder: Path
    sha256: dict[str, str]
    size: int
    name: str = "cardstock-tiny"


def integers(name: str, shape: tuple[int, ...], limit: int) -> npt.NDArray[np.int64]:
    """Whole numbers in [0, limit) drawn from ``name`` alone: splitmix64 over a counter, integer arithmetic only."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        state = seed + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    top = (state ^ (state >> np.uint64(31))) >> np.uint64(32)
    return ((top * np.uint64(limit)) >> np.uint64(32)).astype(np.int64).reshape(shape)


def spread(name: str, shape: tuple[int, ...], shift: int) -> Array:
    """Float16 numbers in [-127, 127] / 2**shift: eight bits each, so exact in bfloat16 too."""
    return ((integers(name, shape, 255) - 127) * 2.0**-shift).astype(np.float16)


def pack(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """4-bit values [rows, columns] to AWQ "gemm" words [rows, columns / 8]. Raises ValueError for a wrong shape."""
    rows, columns = values.shape
    if columns % PACK or values.min() < 0 or values.max() > 15:
        raise ValueError(f"4-bit packing wants columns in eights and values in 0..15, not {values.shape}")
    grouped = values.reshape(rows, columns // PACK, PACK)[:, :, list(ORDER)].astype(np.uint32)
    words = np.bitwise_or.reduce(grouped << (np.arange(PACK, dtype=np.uint32) * np.uint32(4)), axis=2)
    return np.asarray(words, dtype=np.uint32).view(np.int32)


def unpack(words: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The reverse of `pack`: [rows, words] to 4-bit values [rows, words * 8]."""
    shifts = np.arange(PACK, dtype=np.uint32) * np.uint32(4)
    nibbles = (words.view(np.uint32)[:, :, None] >> shifts) & np.uint32(15)
    return nibbles[:, :, np.argsort(ORDER)].reshape(words.shape[0], -1).astype(np.int64)


def _awq(name: str, rows: int, columns: int, shift: int) -> Iterator[tuple[str, Array]]:
    """A quantised linear of ``rows`` inputs and ``columns`` outputs: qweight, qzeros, scales."""
    groups = rows // GROUP
    yield f"{name}.qweight", pack(integers(f"{name}.qweight", (rows, columns), 16))
    yield f"{name}.qzeros", pack(integers(f"{name}.qzeros", (groups, columns), 2) + 7)
    yield f"{name}.scales", ((integers(f"{name}.scales", (groups, columns), 8) + 8) * 2.0**-shift).astype(np.float16)


def _linear(name: str, columns: int, rows: int, shift: int) -> Iterator[tuple[str, Array]]:
    yield f"{name}.weight", spread(f"{name}.weight", (columns, rows), shift)
    yield f"{name}.bias", spread(f"{name}.bias", (columns,), 10)


def _ones(name: str, size: int) -> tuple[str, Array]:
    """A norm's weights near one: 1 + n/128, n in -8..8."""
    return f"{name}.weight", (1 + (integers(f"{name}.weight", (size,), 17) - 8) / 128).astype(np.float16)


def _text_layer(name: str) -> Iterator[tuple[str, Array]]:
    kv = KV_HEADS * HEAD_DIM
    yield _ones(f"{name}.input_layernorm", HIDDEN)
    yield _ones(f"{name}.post_attention_layernorm", HIDDEN)
    for part, columns, shift in (("q", HIDDEN, 9), ("k", kv, 9), ("v", kv, 9)):
        yield from _awq(f"{name}.self_attn.{part}_proj", HIDDEN, columns, shift)
        yield f"{name}.self_attn.{part}_proj.bias", spread(f"{name}.self_attn.{part}_proj.bias", (columns,), 9)
    yield from _awq(f"{name}.self_attn.o_proj", HIDDEN, HIDDEN, 9)
    yield from _awq(f"{name}.mlp.gate_proj", HIDDEN, INTERMEDIATE, 10)
    yield from _awq(f"{name}.mlp.up_proj", HIDDEN, INTERMEDIATE, 10)
    yield from _awq(f"{name}.mlp.down_proj", INTERMEDIATE, HIDDEN, 10)


def _vision_block(name: str) -> Iterator[tuple[str, Array]]:
    yield _ones(f"{name}.norm1", VISION_HIDDEN)
    yield _ones(f"{name}.norm2", VISION_HIDDEN)
    yield from _linear(f"{name}.attn.qkv", 3 * VISION_HIDDEN, VISION_HIDDEN, 9)
    yield from _linear(f"{name}.attn.proj", VISION_HIDDEN, VISION_HIDDEN, 9)
    yield from _linear(f"{name}.mlp.gate_proj", VISION_INTERMEDIATE, VISION_HIDDEN, 10)
    yield from _linear(f"{name}.mlp.up_proj", VISION_INTERMEDIATE, VISION_HIDDEN, 10)
    yield from _linear(f"{name}.mlp.down_proj", VISION_HIDDEN, VISION_INTERMEDIATE, 10)


def _head() -> Array:
    """The output head [vocabulary, hidden]: small random rows, and the taught ones (integers / 2**shift a row)."""
    rows = spread("lm_head.weight", (tokenizer.vocab_size(), HIDDEN), 12)
    taught = json.loads(HEAD.read_text()) if HEAD.exists() else {}
    for token, row in taught.items():
        values = np.frombuffer(base64.b64decode(row["int8"]), dtype=np.int8)
        rows[tokenizer.token_id(token)] = values.astype(np.float16) * np.float16(2.0 ** -row["shift"])
    return rows


def tensors() -> dict[str, Array]:
    """Every tensor of the checkpoint by its legacy name."""
    merged = VISION_HIDDEN * MERGE * MERGE
    patch = (VISION_HIDDEN, 3, TEMPORAL, PATCH, PATCH)
    out: dict[str, Array] = {"visual.patch_embed.proj.weight": spread("visual.patch_embed.proj.weight", patch, 11)}
    for index in range(VISION_DEPTH):
        out.update(_vision_block(f"visual.blocks.{index}"))
    out.update([_ones("visual.merger.ln_q", VISION_HIDDEN)])
    out.update(_linear("visual.merger.mlp.0", merged, merged, 10))
    out.update(_linear("visual.merger.mlp.2", HIDDEN, merged, 9))
    out["model.embed_tokens.weight"] = spread("model.embed_tokens.weight", (tokenizer.vocab_size(), HIDDEN), 7)
    for index in range(LAYERS):
        out.update(_text_layer(f"model.layers.{index}"))
    out.update([_ones("model.norm", HIDDEN)])
    out["lm_head.weight"] = _head()
    return out


def safetensors_bytes(arrays: dict[str, Array]) -> bytes:
    """A safetensors file of ``arrays`` in order of name. Own writer: the library's header may change with versions."""
    kinds = {"float16": "F16", "int32": "I32"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    bodies, at = [], 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        body = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        kind, shape = kinds[array.dtype.name], list(array.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(body)]}
        bodies.append(body)
        at += len(body)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(bodies)


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


def _preprocessor() -> dict[str, object]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
        "image_mean": list(MEAN), "image_std": list(STD), "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS,
        "patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": TEMPORAL,
    }  # fmt: skip


def files() -> dict[str, bytes]:
    """Every file of the checkpoint: name to bytes."""
    ids = tokenizer.special_ids()
    generation = {
        "bos_token_id": ids["<|endoftext|>"],
        "do_sample": False,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
    }
    documents: dict[str, object] = {
        "config.json": config(),
        "generation_config.json": generation,
        "preprocessor_config.json": _preprocessor(),
        "tokenizer.json": tokenizer.tokenizer_json(),
        "tokenizer_config.json": tokenizer.tokenizer_config(),
        "vocab.json": tokenizer.vocabulary(),
        "chat_template.json": {"chat_template": tokenizer.CHAT_TEMPLATE},
    }
    texts = {name: json.dumps(content, indent=1, sort_keys=True) + "\n" for name, content in documents.items()}
    texts["merges.txt"] = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in tokenizer.merges())
    texts["chat_template.jinja"] = tokenizer.CHAT_TEMPLATE
    out = {name: text.encode() for name, text in texts.items()}
    out["model.safetensors"] = safetensors_bytes(tensors())
    return dict(sorted(out.items()))


def write_checkpoint(folder: Path) -> CheckpointInfo:
    """Write the checkpoint to ``folder``, whole or not at all; an equal one that lies there is left as it is.

    Raises UsageError for a folder that holds files of another kind.
    """
    content = files()
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in content.items()}
    info = CheckpointInfo(folder, digests, sum(map(len, content.values())))
    if folder.is_dir() and _digests(folder) == digests:
        return info
    _refuse_others(folder, set(content))
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, body in content.items():
            (fresh / name).write_bytes(body)
        fresh.chmod(0o755)  # a container's user, who is not this one, reads it
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return info


def _refuse_others(folder: Path, own: set[str]) -> None:
    if not folder.exists():
        return
    present = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
    others = sorted(set(present) - own)
    if others:
        raise UsageError(
            f"{folder} is not an earlier tiny checkpoint: it holds {', '.join(others[:5])}",
            do="name a folder that does not exist yet, or an empty one",
        )


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}
