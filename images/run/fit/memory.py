"""The memory of one card, added up line by line. Pure arithmetic; sizes in bytes, lengths in tokens.

Weights, the rotary table and the key-value cache are exact, and with the allocator's rounding they are what vLLM logs
after loading. What is needed while computing is an upper estimate made of the tensors that are alive at once: 1 to 7 %
above what 7B's shape allocates on an H200 (records/cards/h200-fit-memory.json), in transformers, and above what each
published log says (tests/golden/memory_logs.yaml). NCCL and CUDA graphs are round figures of logs (unverified).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from packaging.version import Version

from images.matrix import Arch
from images.run.fit.activations import (
    STEP_BUFFERS,
    encoded_pictures,
    encoder_tokens,
    graph_bytes,
    raw_pictures,
    step_buffers,
    step_tokens,
    text_peak,
    vision_peak,
)
from images.run.fit.activations import Load as Load
from images.run.fit.backends import CardBackend
from images.run.fit.loaded import ROTARY_TIMES, loaded_bytes, rotary_table
from images.run.fit.model import Model
from images.run.fit.parallel import Split
from images.run.fit.usable_memory import GIB
from images.run.fit.weights import (
    Parts,
    kv_bytes,
    layers_per_card,
    layers_per_stage,
    stage_weights,
    unpacked_zeros,
    vision_weights,
)

# records/cards/h200-fit-memory.json: 0.51 GiB before any work and 0.68 after it, on a card with many processors; with
# vLLM 0.33.0 0.74, and 0.11 more that torch keeps beyond what vLLM may fill
# (h200-memory-cu130-vllm0.33.0-flash-attn-sm90.json). The spare covers the difference.
CONTEXT, LARGE_CONTEXT = GIB // 2, 3 * GIB // 4
LARGE = Arch(9, 0)
NCCL = int(0.4 * GIB)
SPARE = GIB // 4
BLOCK = 16
MOST_UTILISATION = 0.95
_GRAPHS_INSIDE = Version("0.12")
# cuBLAS's workspace, and what the allocator rounds of large activations.
WORKSPACE = 64 * 2**20
# Tables of the vision tower that newer versions keep: 4 MB with 7B in 16 bits, by the record above.
_TABLES_FROM, TABLES = Version("0.14"), 8 * 2**20
# The kernel for AWQ on 9.0 (Machete) has zeros as 16-bit numbers, and the packed ones seem to stay: beyond what is read
# 7B took 125 MB, by the record above. vllm/model_executor/kernels/linear/mixed_precision/machete.py@v0.33.0.
_WIDE_ZEROS_FROM = Version("0.33")

LOADED = (
    "text weights", "vision weights", "rotary table", "allocator's rounding", "form not read", "zeros unpacked",
    "step buffers",
)  # fmt: skip


@dataclass(frozen=True)
class MemoryLine:
    """One line of the sum."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class MemorySum:
    """The memory of the fullest card: ``usable`` bytes of it, the lines, and the tokens its key-value cache holds.

    ``missing`` are bytes lacking for one conversation of the load's length; 0: it fits. ``utilisation`` is the part of
    ``usable`` that vLLM may fill; ``stage`` counts from 0.
    """

    usable: int
    lines: tuple[MemoryLine, ...]
    tokens: int
    missing: int
    utilisation: float
    stage: int

    @property
    def used(self) -> int:
        """Bytes of all lines."""
        return sum(line.bytes for line in self.lines)

    @property
    def loaded(self) -> int:
        """Bytes of the lines that vLLM logs together as "Model loading took"."""
        return sum(line.bytes for line in self.lines if line.name in LOADED)


def add_up(model: Model, backend: CardBackend, split: Split, load: Load, usable: int) -> MemorySum:
    """The sum of the card whose key-value cache holds the fewest tokens."""
    layers, old = model.shape.layers, backend.version < Version("0.8")
    parts = layers_per_stage(layers, split.pp, rest_last=old) if backend.vllm else layers_per_card(layers, split.pp)
    sums = [_stage(model, backend, split, load, usable, parts, at) for at in range(len(parts))]
    return min(sums, key=lambda one: (one.tokens, -one.missing))


def _stage(
    model: Model, backend: CardBackend, split: Split, load: Load, usable: int, parts: Parts, at: int
) -> MemorySum:
    lines = [*_weights(model, backend, split, parts, at), *_working(model, backend, split, load, parts, at)]
    if split.tp * split.pp > 1 and backend.vllm:
        lines.append(MemoryLine("NCCL", NCCL, "buffers between the cards (round figure)"))
    graphs = graph_bytes(backend, load, parts[at])
    context = LARGE_CONTEXT if backend.arch >= LARGE else CONTEXT
    outside = [MemoryLine("CUDA context", context, "kernels and the libraries' own memory (round figure)")]
    if graphs:
        outside.append(MemoryLine("CUDA graphs", graphs, "captured after the cache is laid out (estimate)"))
    outside.append(MemoryLine("spare", SPARE, "left free"))
    budget = usable - sum(line.bytes for line in outside)
    utilisation = min(MOST_UTILISATION, math.floor(max(0, budget) / usable * 100) / 100) if usable else 0.0
    left = int(utilisation * usable) - sum(line.bytes for line in lines)
    # From 0.12 on vLLM takes what it guesses of the graphs from the cache as well (v1/worker/gpu_worker.py@v0.25.1).
    reserve = graphs if backend.vllm and backend.version >= _GRAPHS_INSIDE else 0
    each = kv_bytes(model, parts[at], split.tp)
    tokens = max(0, left - reserve) // max(1, each) // BLOCK * BLOCK
    missing = 0 if tokens >= load.length else max(1, load.length * each - (left - reserve))
    cache = MemoryLine("key-value cache", max(0, left), f"{tokens} tokens of {each} bytes")
    return MemorySum(usable, (*lines, cache, *outside), tokens, missing, utilisation, at)


def _weights(model: Model, backend: CardBackend, split: Split, parts: Parts, at: int) -> list[MemoryLine]:
    form = model.told if model.form == "16-bit" else f"{model.told}; table and head 2 bytes each"
    cut = f", cut into {split.tp}" if split.tp > 1 else ""
    where = f", stage {at + 1} of {len(parts)} with {parts[at]} of {sum(parts)} layers" if len(parts) > 1 else ""
    share = 1 if split.whole_vision else split.tp
    lines = [MemoryLine("text weights", stage_weights(model, parts, at, split.tp), f"{form}{cut}{where}")]
    if backend.vllm or at == 0:
        size = vision_weights(model, share, backend.vision_bytes)
        every = ", on every stage" if backend.vllm and len(parts) > 1 else ""
        lines.append(MemoryLine("vision weights", size, f"{backend.vision_bytes} bytes each, in every form{every}"))
    if backend.vllm:
        table = rotary_table(model)
        lines.append(MemoryLine("rotary table", table, f"{ROTARY_TIMES} x {model.shape.positions} positions"))
        loaded = loaded_bytes(model, parts, at, split.tp, share)
        rounding = max(0, loaded - sum(line.bytes for line in lines))
        rounding += TABLES if backend.version >= _TABLES_FROM else 0
        lines.append(MemoryLine("allocator's rounding", rounding, "torch gives memory in steps of up to 2 MiB"))
        if model.form == "awq" and LARGE <= backend.arch < Arch(10, 0) and backend.version >= _WIDE_ZEROS_FROM:
            wide = parts[at] * unpacked_zeros(model, split.tp)
            lines.append(
                MemoryLine("zeros unpacked", wide, "16 bits each beside the packed ones, for this card's kernel")
            )
        if model.assumed and model.group > 0 and model.form in ("awq", "gptq", "wna16"):
            worst = replace(model, group=32, act_order=model.form == "gptq")
            more = max(0, loaded_bytes(worst, parts, at, split.tp, share) - loaded)
            lines.append(MemoryLine("form not read", more, "what groups of 32 in an order of their own would add"))
    return lines


def _working(model: Model, backend: CardBackend, split: Split, load: Load, parts: Parts, at: int) -> list[MemoryLine]:
    """The vision tower and the decoder do not work at the same time: the greater peak of the two counts."""
    pictures = encoder_tokens(backend, load)
    see = vision_peak(model, backend, split, pictures) if backend.vllm or at == 0 else 0
    text = text_peak(model, backend, split.tp, load, last=at == len(parts) - 1)
    what = f"{pictures} picture tokens at once" if see > text else f"{step_tokens(backend, load)} tokens at once"
    name = "activations, vision" if see > text else "activations, text"
    more = WORKSPACE if backend.vllm else 0
    lines = [
        MemoryLine(name, max(see, text) + more, f"{what} (estimate; the other of text and vision takes less)"),
        MemoryLine("pictures, encoded", encoded_pictures(model, pictures), f"{pictures} tokens kept for the decoder"),
    ]
    if backend.vllm:
        raw = raw_pictures(model, pictures)
        lines.append(MemoryLine("pictures, as they came", raw, "4 bytes a number until the step is done"))
        if buffers := step_buffers(model, backend, load):
            lines.append(MemoryLine("step buffers", buffers, f"{STEP_BUFFERS} x {load.batched} tokens (estimate)"))
    return lines
