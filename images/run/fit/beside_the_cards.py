"""The memory of the machine that a server needs beside its cards, added up line by line. Pure arithmetic.

The image for the CPU was seen to hold 3.8 GiB with the tiny checkpoint, its cache of 1 GiB included; the rest are round
figures above what vLLM's settings allow (unverified). What a file system keeps of the weights is not counted: the
kernel takes it back when memory is short.
"""

from __future__ import annotations

import math

from images.run.fit.choose import Fit
from images.run.fit.memory import MemoryLine
from images.run.fit.model import Model
from images.run.fit.settings import shm_gigabytes
from images.run.fit.usable_memory import GIB
from images.run.fit.weights import stage_weights, vision_weights

SERVER = 3 * GIB
CARD = 4 * GIB
# Bodies of 256 MB, and 128 megapixels while they are decoded: 98 took 1.5 GB. The limits: guard_settings.py.
REQUESTS = 3 * GIB
# vLLM keeps prepared pictures: --mm-processor-cache-gb and VLLM_MM_INPUT_CACHE_GIB, 4 in the server and in the engine.
PICTURES = 8 * GIB
# --swap-space of engines that compute a whole prompt at once (V0), for each card.
SWAP = 4 * GIB
SPARE = 2 * GIB


def host_memory(fit: Fit) -> tuple[MemoryLine, ...]:
    """The lines of one machine of the fit."""
    count = fit.ask.count
    lines = [MemoryLine("server", SERVER, "imports, tokenizer"), MemoryLine("requests", REQUESTS, "the guard's limits")]
    lines.append(MemoryLine("cards", CARD * count, f"{count} of them: torch, CUDA, buffers"))
    if fit.backend.vllm:
        lines.append(MemoryLine("prepared pictures", PICTURES, "kept by the server and by the engine"))
        lines.append(MemoryLine("shared memory", shm_gigabytes(fit) * GIB, "--shm-size"))
        if not fit.backend.chunked:
            lines.append(MemoryLine("swapped cache", SWAP * count, "--swap-space of V0"))
    else:
        lines.append(MemoryLine("weights", _weights(fit.ask.model), "on their way to the cards"))
    return (*lines, MemoryLine("spare", SPARE, "left free"))


def cpu_memory(model: Model, cache: int, shm: int) -> tuple[MemoryLine, ...]:
    """The lines of a server on a CPU; ``cache`` and ``shm`` in GiB."""
    return (
        MemoryLine("server", SERVER, "imports, tokenizer"),
        MemoryLine("requests", REQUESTS, "the guard's limits"),
        MemoryLine("weights", 2 * _weights(model), "as they come, and as the CPU takes them"),
        MemoryLine("key-value cache", cache * GIB, "VLLM_CPU_KVCACHE_SPACE"),
        MemoryLine("prepared pictures", PICTURES, "kept by the server and by the engine"),
        MemoryLine("shared memory", shm * GIB, "--shm-size"),
        MemoryLine("spare", SPARE, "left free"),
    )


def memory_limit(lines: tuple[MemoryLine, ...]) -> int:
    """Bytes of the sum, in whole GiB."""
    return math.ceil(sum(line.bytes for line in lines) / GIB) * GIB


def _weights(model: Model) -> int:
    return stage_weights(model, (model.shape.layers,), 0, 1) + vision_weights(model, 1)
