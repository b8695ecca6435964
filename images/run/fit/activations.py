"""What a card needs while it computes: the greatest need of the vision tower and of the decoder, and what stays. Pure.

Upper estimates made of the tensors that are alive at once; sizes in bytes, lengths in tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from packaging.version import Version

from images.run.fit.backends import CardBackend
from images.run.fit.model import Model
from images.run.fit.parallel import Split

# One captured batch size of one layer. vLLM's logs: 7B, 67 sizes in V1: 0.5 GiB; 35 sizes in V0: 0.25 GiB.
GRAPH = int(0.3 * 2**20)
_WINDOW = 32768
STEP_BUFFERS = 3
_BUFFERS_FROM = Version("0.14")


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


def encoded_pictures(model: Model, tokens: int) -> int:
    """Bytes of encoded pictures, which the decoder reads."""
    return tokens * model.shape.hidden * 2 * (1 + model.shape.vision.taps)


def raw_pictures(model: Model, tokens: int) -> int:
    """Bytes of pictures as the processor hands them over, in float32: vLLM has them on the card through the step."""
    see = model.shape.vision
    return tokens * see.merge**2 * see.patch_width * 4


def step_buffers(model: Model, backend: CardBackend, load: Load) -> int:
    """What is allocated once for each token of a step: Qwen3-VL's deepstack (qwen3_vl.py@v0.11.0), and as much in newer
    versions of the others: 15.67 GiB are logged for 7B where 0.8 to 0.13 log 15.63 (tests/golden/memory_logs.yaml)."""
    taps = model.shape.vision.taps or (STEP_BUFFERS if backend.version >= _BUFFERS_FROM else 0)
    return taps * load.batched * model.shape.hidden * 2


def step_tokens(backend: CardBackend, load: Load) -> int:
    """Tokens of one step: V0 and transformers compute a whole prompt, which in V0 holds all pictures of its test."""
    if backend.chunked:
        return load.batched
    return max(load.length, encoder_tokens(backend, load)) if backend.vllm else load.length


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

    vLLM before 0.9 turns them by torch's own operations unless the package flash-attn does it, with more of them alive
    at once (qwen2_vl.py@v0.8.5 apply_rotary_emb_torch). Pictures as they came are not in it.
    transformers before 4.53 also holds a mask of patches by patches (modeling_qwen2_5_vl.py@v4.51.3).
    """
    see, width, tp = model.shape.vision, backend.vision_bytes, 1 if split.whole_vision else split.tp
    patches = tokens * see.merge**2
    gathered = 2 if tp > 1 else 1
    slow = backend.vllm and backend.version < Version("0.9") and backend.vision_attention != "FLASH_ATTN"
    attention = see.hidden * ((2 + 3 * gathered + 3 / tp) * width + (28 if slow else 16) / tp)
    mlp = (2 * see.hidden + 3 * see.intermediate / tp) * width
    pixels = see.patch_width * width + (0 if backend.vllm else see.patch_width * 4)
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
    tokens = step_tokens(backend, load)
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
