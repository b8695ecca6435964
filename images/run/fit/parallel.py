"""How a model may be cut among cards: what a tensor parallel size must divide, and which sizes to try. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import Version

from images.run.fit.backends import CardBackend
from images.run.fit.model import Model

# --mm-encoder-tp-mode data leaves the vision tower whole (vllm/model_executor/models/qwen2_5_vl.py@v0.11.0).
_DATA_PARALLEL_VISION = Version("0.11")
MARLIN_INPUTS = 128


@dataclass(frozen=True)
class Obstacle:
    """Why a tensor parallel size cannot be; ``vision`` if only the vision tower is in the way."""

    why: str
    source: str
    vision: bool = False


@dataclass(frozen=True)
class Split:
    """Tensor parallel size, pipeline parallel size, and whether each card holds the whole vision tower."""

    tp: int
    pp: int
    whole_vision: bool = False


def obstacles(model: Model, tp: int, kernel: str = "") -> Iterator[Obstacle]:
    """Everything that forbids cutting ``model`` into ``tp`` parts; ``kernel`` is that of its quantised linears."""
    shape, see = model.shape, model.shape.vision
    if shape.heads % tp:
        why = f"{shape.heads} attention heads must be divisible by tensor parallel size {tp}"
        yield Obstacle(why, "vllm/config.py verify_with_parallel_config")
    if shape.kv_heads % tp and tp % shape.kv_heads:
        why = f"{shape.kv_heads} key and value heads can be neither divided nor repeated over {tp} cards"
        yield Obstacle(why, "vllm/model_executor/models/qwen2.py")
    if shape.intermediate % tp:
        yield Obstacle(f"the width {shape.intermediate} is not divisible by {tp}", "vllm/distributed/utils.py divide")
    elif model.form != "16-bit":
        yield from _quantised(model, tp, kernel)
    if see.heads % tp:
        yield Obstacle(f"{see.heads} heads of the vision tower are not divisible by {tp}", _VISION, vision=True)
    if see.intermediate % tp:
        why = f"the vision tower's width {see.intermediate} is not divisible by {tp}"
        yield Obstacle(why, _VISION, vision=True)


_VISION = "vllm/model_executor/models/qwen2_5_vl.py, dist_utils.divide"


def _quantised(model: Model, tp: int, kernel: str) -> Iterator[Obstacle]:
    """Inputs are cut at whole groups, for every kernel, and at 128 for Marlin (its min_thread_k)."""
    shape = model.shape
    if model.form == "int8" or not model.group:
        return
    marlin = kernel.endswith("marlin") and model.form != "fp8"
    source = f"vllm/model_executor/layers/quantization/{model.method or model.form}.py create_weights; vllm#13640"
    for what, width in (("width", shape.intermediate), ("attention output", shape.heads * shape.head_dim)):
        part = width // tp
        if width % tp == 0 and model.group > 0 and part % model.group:
            why = (
                f"the {what} {width} is {width / model.group:g} groups of {model.group}, which cannot be cut into {tp}:"
                " 'The input size is not aligned with the quantized weight shape'"
            )
            yield Obstacle(why, source)
        elif width % tp == 0 and marlin and part % MARLIN_INPUTS:
            why = f"the {what} {width} over {tp} cards is {part}, 'not divisible by min_thread_k = {MARLIN_INPUTS}'"
            yield Obstacle(why, "vllm/model_executor/layers/quantization/utils/marlin_utils.py")


def try_split(model: Model, backend: CardBackend, tp: int, pp: int) -> Split | Obstacle:
    """The split into ``tp`` by ``pp``, or why it cannot be. The server on transformers cuts between layers only."""
    if pp > model.shape.layers:
        return Obstacle(f"{model.shape.layers} layers cannot be dealt to {pp} stages", "vllm/distributed/utils.py")
    if not backend.vllm:
        why = "transformers runs as one process, each card holding a run of layers"
        return Split(1, pp) if tp == 1 else Obstacle(why, "dockerfiles/rootfs/opt/cardstock/awq_loader.py")
    against = list(obstacles(model, tp, backend.kernel))
    if not against:
        return Split(tp, pp)
    if all(obstacle.vision for obstacle in against) and backend.version >= _DATA_PARALLEL_VISION:
        return Split(tp, pp, whole_vision=True)
    return against[0]


def sizes(count: int, nodes: int, backend: CardBackend) -> list[tuple[int, int]]:
    """Every (tensor, pipeline) pair that uses all cards, the widest first; tensors are not cut across machines."""
    if not backend.vllm:
        return [(1, count * nodes)]
    return [(tp, count * nodes // tp) for tp in range(count, 0, -1) if count % tp == 0]
