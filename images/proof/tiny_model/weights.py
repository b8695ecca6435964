"""Weights of tiny models, the same on every machine: drawn from their names alone, packed, written as safetensors.

Every weight has few enough bits to be exact in float16, bfloat16 and float32 alike.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from images.proof.tiny_model import tokenizer

HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, LAYERS = 256, 4, 2, 512, 2
HEAD_DIM = HIDDEN // HEADS
VISION_HIDDEN, VISION_HEADS, VISION_INTERMEDIATE, VISION_DEPTH = 128, 2, 256, 2
MERGE, TEMPORAL = 2, 2
GROUP, PACK = 128, 8
# Where AWQ's "gemm" layout keeps column 8k+i of a group of eight: nibble n holds column ORDER[n].
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)

Array = npt.NDArray[np.generic]


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


def awq(name: str, rows: int, columns: int, shift: int) -> Iterator[tuple[str, Array]]:
    """A quantised linear of ``rows`` inputs and ``columns`` outputs: qweight, qzeros, scales."""
    groups = rows // GROUP
    yield f"{name}.qweight", pack(integers(f"{name}.qweight", (rows, columns), 16))
    yield f"{name}.qzeros", pack(integers(f"{name}.qzeros", (groups, columns), 2) + 7)
    yield f"{name}.scales", ((integers(f"{name}.scales", (groups, columns), 8) + 8) * 2.0**-shift).astype(np.float16)


def linear(name: str, columns: int, rows: int, shift: int) -> Iterator[tuple[str, Array]]:
    yield f"{name}.weight", spread(f"{name}.weight", (columns, rows), shift)
    yield f"{name}.bias", spread(f"{name}.bias", (columns,), 10)


def ones(name: str, size: int) -> tuple[str, Array]:
    """A norm's weights near one: 1 + n/128, n in -8..8."""
    return f"{name}.weight", (1 + (integers(f"{name}.weight", (size,), 17) - 8) / 128).astype(np.float16)


def layer_norm(name: str, size: int) -> Iterator[tuple[str, Array]]:
    """A norm with a bias."""
    yield ones(name, size)
    yield f"{name}.bias", spread(f"{name}.bias", (size,), 10)


def text_layer(name: str, *, norms: bool = False) -> Iterator[tuple[str, Array]]:
    """A decoder layer in AWQ; ``norms``: queries and keys are normed by head and have no bias (Qwen3)."""
    kv = KV_HEADS * HEAD_DIM
    yield ones(f"{name}.input_layernorm", HIDDEN)
    yield ones(f"{name}.post_attention_layernorm", HIDDEN)
    for part, columns, shift in (("q", HIDDEN, 9), ("k", kv, 9), ("v", kv, 9)):
        yield from awq(f"{name}.self_attn.{part}_proj", HIDDEN, columns, shift)
        if not norms:
            yield f"{name}.self_attn.{part}_proj.bias", spread(f"{name}.self_attn.{part}_proj.bias", (columns,), 9)
    for part in ("q", "k") if norms else ():
        yield ones(f"{name}.self_attn.{part}_norm", HEAD_DIM)
    yield from awq(f"{name}.self_attn.o_proj", HIDDEN, HIDDEN, 9)
    yield from awq(f"{name}.mlp.gate_proj", HIDDEN, INTERMEDIATE, 10)
    yield from awq(f"{name}.mlp.up_proj", HIDDEN, INTERMEDIATE, 10)
    yield from awq(f"{name}.mlp.down_proj", INTERMEDIATE, HIDDEN, 10)


def text_model(prefix: str, *, norms: bool = False) -> dict[str, Array]:
    """Embedding table, decoder layers and last norm below ``prefix``."""
    name = f"{prefix}.embed_tokens.weight"
    out: dict[str, Array] = {name: spread(name, (tokenizer.vocab_size(), HIDDEN), 7)}
    for index in range(LAYERS):
        out.update(text_layer(f"{prefix}.layers.{index}", norms=norms))
    out.update([ones(f"{prefix}.norm", HIDDEN)])
    return out


def output_head(taught: Mapping[str, Any]) -> Array:
    """The output head [vocabulary, hidden]: small random rows, and the taught ones (integers / 2**shift a row)."""
    rows = spread("lm_head.weight", (tokenizer.vocab_size(), HIDDEN), 12)
    for token, row in taught.items():
        values = np.frombuffer(base64.b64decode(row["int8"]), dtype=np.int8)
        rows[tokenizer.token_id(token)] = values.astype(np.float16) * np.float16(2.0 ** -row["shift"])
    return rows


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
