"""The memory of one card, added up line by line. Pure arithmetic; sizes in bytes, lengths in tokens.

Weights and the key-value cache are exact. What is needed while computing is an upper estimate made of the tensors that
are alive at once: 1 to 7 % above what 7B's shape allocates on an H200 (records/cards/h200-fit-memory.json), in
transformers; vLLM's own was not measured. NCCL and CUDA graphs are round figures from logs (unverified).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from packaging.version import Version

from images.run.fit.backends import CardBackend
from images.run.fit.model import Model
from images.run.fit.parallel import Split
from images.run.fit.usable_memory import GIB
from images.run.fit.weights import Parts, kv_bytes, layers_per_card, layers_per_stage, stage_weights, vision_weights

# records/cards/h200-fit-memory.json: 0.51 GiB before any work and 0.68 after it, on a card with many processors;
# the spare covers the difference.
CONTEXT = GIB // 2
NCCL = int(0.4 * GIB)
SPARE = GIB // 4
BLOCK = 16
MOST_UTILISATION = 0.95
# One captured batch size of one layer. vLLM's logs: 7B, 67 sizes in V1: 0.5 GiB; 35 sizes in V0: 0.25 GiB.
GRAPH = int(0.3 * 2**20)
_GRAPHS_INSIDE = Version("0.12")
_WINDOW = 32768


@dataclass(frozen=True)
class Load:
    """What a server is set to take: ``length`` tokens of one conversation, ``seqs`` at a time, ``batched`` tokens a
    step; ``images`` pictures in one request of at most ``image_tokens`` each; videos or not; CUDA graphs or not."""

    length: int
    seqs: int = 1
    batched: int = 2048
    image_tokens: int = 1280
    images: int = 1
    video: bool = False
    graphs: bool = False


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
    outside = [MemoryLine("CUDA context", CONTEXT, "kernels and the libraries' own memory (round figure)")]
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
    lines = [MemoryLine("text weights", stage_weights(model, parts, at, split.tp), f"{form}{cut}{where}")]
    if backend.vllm or at == 0:
        share = 1 if split.whole_vision else split.tp
        size = vision_weights(model, share, backend.vision_bytes)
        every = ", on every stage" if backend.vllm and len(parts) > 1 else ""
        lines.append(MemoryLine("vision weights", size, f"{backend.vision_bytes} bytes each, in every form{every}"))
    return lines


def _working(model: Model, backend: CardBackend, split: Split, load: Load, parts: Parts, at: int) -> list[MemoryLine]:
    """The vision tower and the decoder do not work at the same time: the greater peak of the two counts."""
    pictures = encoder_tokens(backend, load)
    see = vision_peak(model, backend, split, pictures) if backend.vllm or at == 0 else 0
    text = text_peak(model, backend, split.tp, load, last=at == len(parts) - 1)
    held = pictures * model.shape.hidden * 2 * (1 + model.shape.vision.taps)
    what = f"{pictures} picture tokens at once" if see > text else f"{_step(backend, load)} tokens at once"
    name = "activations, vision" if see > text else "activations, text"
    return [
        MemoryLine(name, max(see, text), f"{what} (the other of text and vision takes less)"),
        MemoryLine("pictures, encoded", held, f"{pictures} tokens kept for the decoder"),
    ]


def _step(backend: CardBackend, load: Load) -> int:
    return load.batched if backend.chunked else load.length


def encoder_tokens(backend: CardBackend, load: Load) -> int:
    """Picture tokens that the vision tower is given at once, as vLLM does when it measures its memory.

    V1: as many pictures as reach one step's tokens (vllm/v1/core/encoder_cache_manager.py); V0: those of as many
    requests as fit a step (vllm/worker/model_runner.py@v0.8.5 _dummy_run); transformers: those of one request. A video
    may be as long as a conversation.
    """
    item = load.length if load.video else load.image_tokens
    request = max(load.images * load.image_tokens, item)
    if not backend.vllm:
        return request
    if backend.chunked:
        return max(math.ceil(max(load.batched, item) / item) * item, request)
    return request * max(1, min(load.seqs, load.length // request))


def vision_peak(model: Model, backend: CardBackend, split: Split, tokens: int) -> int:
    """The vision tower's greatest need: in attention, where positions are turned in float32, or in the MLP.

    transformers before 4.53 also holds a mask of patches by patches (modeling_qwen2_5_vl.py@v4.51.3).
    """
    see, width, tp = model.shape.vision, backend.vision_bytes, 1 if split.whole_vision else split.tp
    patches = tokens * see.merge**2
    gathered = 2 if tp > 1 else 1
    attention = see.hidden * ((2 + 3 * gathered + 3 / tp) * width + 16 / tp)
    mlp = (2 * see.hidden + 3 * see.intermediate / tp) * width
    pixels = see.patch_width * (4 + width)
    mask = patches**2 * (1 + width) if not backend.vllm and backend.version < Version("4.53") else 0
    return math.ceil(patches * (max(attention, mlp) + pixels)) + mask


def text_peak(model: Model, backend: CardBackend, tp: int, load: Load, *, last: bool) -> int:
    """The decoder's greatest need: the MLP of one step, a matrix unpacked to 16 bits, and what sampling needs.

    Sampling sorts: 32 bytes for each word of the vocabulary and request. transformers before 4.53 computes the logits
    of the whole prompt, and a prompt as long as the published sliding window (32768, not in use) makes masks of length
    by length (modeling_qwen2_5_vl.py@v4.51.3).
    """
    shape = model.shape
    mlp = 3 * shape.intermediate / tp * 2
    attention = 2 * (shape.heads + 2 * shape.kv_heads) * shape.head_dim / tp * 2
    tokens = _step(backend, load)
    peak = math.ceil(tokens * (max(mlp, attention) + 5 * shape.hidden * 2))
    if backend.unpacks:
        peak += shape.hidden * shape.intermediate // tp * (4 if backend.vllm else 5)
    if last:
        peak += load.seqs * shape.vocab * 32
    if not backend.vllm:
        peak += 3 * 2 * load.length**2 if load.length >= _WINDOW else 0
        if last and backend.version < Version("4.53"):
            peak += load.length * shape.vocab * 2
    return peak


def graph_bytes(backend: CardBackend, load: Load, layers: int) -> int:
    """CUDA graphs of one card: batch sizes 1, 2, 4 and each multiple of 8, V0 up to the requests at a time, V1 to twice
    that and in two kinds from 0.11 on, and always to 512 before (vllm/config.py@v0.8.5, v0.11.0)."""
    if not load.graphs:
        return 0
    most = load.seqs if not backend.chunked else 2 * load.seqs if backend.version >= Version("0.11") else 512
    sizes = sum(size <= most for size in (1, 2, 4)) + min(most, 512) // 8
    return sizes * layers * GRAPH * (2 if backend.version >= Version("0.11") else 1)
