"""What a card holds when vLLM has loaded a model: weights, the rotary table, and what the allocator rounds. Pure.

The tensors are allocated here in the order in which vLLM makes them (qwen2_5_vl.py and qwen2.py@v0.8.5), so the sum is
what it logs as "Model loading took": to the last digit or the last but one in the logs of 0.8 to 0.13
(tests/golden/memory_logs.yaml).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from images.run.fit.allocator import TorchMemory
from images.run.fit.model import Model
from images.run.fit.weights import Parts, layer_tensors

# Positions of a video count its seconds, so vLLM makes the table four times as long (layers/rotary_embedding, the
# class MRotaryEmbedding, from 0.7.2 on). It is made in float32, and kept in the model's 16 bits.
ROTARY_TIMES = 4
# Scales of queries, keys, values and their ranges that each attention layer keeps on the card.
_SCALES = 5


def rotary_table(model: Model) -> int:
    """Bytes of the table of cosines and sines of all positions: 125 MiB for Qwen2.5-VL."""
    return ROTARY_TIMES * model.shape.positions * model.shape.head_dim * 2


@lru_cache(maxsize=4096)
def loaded_bytes(model: Model, parts: Parts, at: int, tp: int, vision_tp: int) -> int:
    """Bytes that torch has allocated for pipeline stage ``at`` on one of ``tp`` cards, as vLLM loads it."""
    memory, shape = TorchMemory(), model.shape
    first, last = at == 0, at == len(parts) - 1
    memory.take_all(_vision(model, vision_tp))
    table = shape.vocab * shape.hidden * 2 // tp
    if first or (last and shape.tied):
        memory.take(table)
    attention, rest = layer_tensors(model, tp)
    for layer in range(parts[at]):
        memory.take_all(attention)
        if layer == 0:
            _rotary(memory, model)
        memory.take_all([4] * _SCALES)
        memory.take_all(rest)
    if last:
        memory.take(shape.hidden * 2)
        if not shape.tied:
            memory.take(table)
    return memory.live


def _rotary(memory: TorchMemory, model: Model) -> None:
    """The table, and what is freed again while it is made: its parts in float32, which later weights fill."""
    rows, width = ROTARY_TIMES * model.shape.positions, model.shape.head_dim
    parts = [memory.take(rows * 4), *(memory.take(rows * width * 2) for _ in range(3))]
    whole = memory.take(rows * width * 4)
    for block in parts:
        memory.give(block)
    memory.take(rows * width * 2)
    memory.give(whole)


def _vision(model: Model, tp: int) -> Iterator[int]:
    """Tensors of the vision tower in the order of qwen2_5_vl.py, qwen2_vl.py and qwen3_vl.py; 2 bytes a number."""
    see, out = model.shape.vision, model.shape.hidden
    row, part, width = see.hidden * 2, see.hidden // tp, see.intermediate // tp
    norm = (row,) if see.gated else (row, row)
    wider = (see.hidden * width * 2, width * 2) * (2 if see.gated else 1)
    merged = see.hidden * see.merge**2
    merger = (merged * merged // tp * 2, merged // tp * 2, merged // tp * out * 2, out * 2)
    yield see.patch_width * row
    if see.positions:
        yield from (row, see.positions * row)
    for _ in range(see.depth):
        yield from (*norm, *norm, 3 * see.hidden * part * 2, 3 * part * 2, part * row, row)
        yield from (*wider, width * row, row)
    yield from (*norm, *merger)
    for _ in range(see.taps):
        yield from (merged * 2, merged * 2, *merger)
