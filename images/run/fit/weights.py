"""How many bytes a model's weights take, and how they are cut among cards. Pure arithmetic; all sizes in bytes."""

from __future__ import annotations

import math

from images.run.fit.model import Model

Parts = tuple[int, ...]


def linear_tensors(model: Model, inputs: int, outputs: int, *, bias: bool = False, whole: int = 0) -> tuple[int, ...]:
    """Bytes of each tensor of one linear of the decoder: its weights, then what its form keeps beside them.

    16 bits: 2 bytes a weight. In fewer bits: a scale, and a zero unless the form is symmetric, for each group; GPTQ
    keeps the group of each input, 4 bytes. FP8 and int8 have a scale of 4 bytes for each output, or for each block.
    ``whole`` are the inputs of all cards, where a linear is cut along them: in GPTQ's own order of inputs a card needs
    the scales of all of them (vllm/model_executor/layers/quantization/gptq.py@v0.8.5 create_weights).
    """
    extra = (outputs * 2,) if bias else ()
    if model.form == "16-bit":
        return (inputs * outputs * 2, *extra)
    if model.form in ("fp8", "int8"):
        side = model.group if model.form == "fp8" else 0
        scales = math.ceil(inputs / side) * math.ceil(outputs / side) if side else outputs
        return (inputs * outputs, scales * 4, *extra)
    of = whole if whole and model.act_order else inputs
    groups = math.ceil(of / model.group) if model.group > 0 else 1
    index = (4 * inputs,) if model.form == "gptq" or model.act_order else ()
    zeros = (groups * outputs * model.weight_bits // 8,) if model.form != "wna16" or not model.symmetric else ()
    return (inputs * outputs * model.weight_bits // 8, groups * outputs * 2, *zeros, *index, *extra)


def linear_bytes(model: Model, inputs: int, outputs: int, *, bias: bool = False, whole: int = 0) -> int:
    """One linear of the decoder with all that its form keeps."""
    return sum(linear_tensors(model, inputs, outputs, bias=bias, whole=whole))


def _linears(model: Model, tp: int) -> tuple[tuple[int, int], ...]:
    """Inputs and outputs of a decoder layer's products on one of ``tp`` cards: into and out of attention, up, down.

    Key and value heads that cannot be split are repeated.
    """
    shape, width = model.shape, model.shape.intermediate // tp
    queries = shape.heads * shape.head_dim // tp
    keys = max(1, shape.kv_heads // tp) * shape.head_dim
    return (shape.hidden, queries + 2 * keys), (queries, shape.hidden), (shape.hidden, 2 * width), (width, shape.hidden)


def layer_tensors(model: Model, tp: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bytes of the tensors of one decoder layer on one of ``tp`` cards: of its attention, and of the rest."""
    shape, (into, out, up, down) = model.shape, _linears(model, tp)
    third = shape.family == "qwen3_vl"
    attention = (
        *linear_tensors(model, *into, bias=not third),
        *linear_tensors(model, *out, whole=shape.heads * shape.head_dim),
        *((shape.head_dim * 2, shape.head_dim * 2) if third else ()),
    )
    rest = (
        *linear_tensors(model, *up),
        *linear_tensors(model, *down, whole=shape.intermediate),
        shape.hidden * 2,
        shape.hidden * 2,
    )
    return attention, rest


def unpacked_zeros(model: Model, tp: int) -> int:
    """The zeros of one decoder layer on one of ``tp`` cards as 16-bit numbers, and once more as they are packed."""
    if model.group <= 0:
        return 0
    zeros = sum(math.ceil(inputs / model.group) * outputs for inputs, outputs in _linears(model, tp))
    return zeros * 2 + zeros * model.weight_bits // 8


def decoder_layer(model: Model, tp: int) -> int:
    """One decoder layer on one of ``tp`` cards."""
    attention, rest = layer_tensors(model, tp)
    return sum(attention) + sum(rest)


def embedding_table(model: Model, tp: int) -> int:
    """The embedding table, or the head: 16 bits in every form."""
    return model.shape.vocab * model.shape.hidden * 2 // tp


def vision_weights(model: Model, tp: int, width: int = 2) -> int:
    """The vision tower with its merger, ``width`` bytes a number; no form quantises it.

    Its norms and biases of the outputs are whole on every card: too small to tell apart here.
    """
    see, out = model.shape.vision, model.shape.hidden
    norm = see.hidden if see.gated else 2 * see.hidden
    matrices = 3 if see.gated else 2
    block = (
        see.hidden * 3 * see.hidden
        + 3 * see.hidden
        + see.hidden**2
        + see.hidden
        + matrices * see.hidden * see.intermediate
        + (matrices - 1) * see.intermediate
        + see.hidden
        + 2 * norm
    )
    merged = see.hidden * see.merge**2
    mlp = merged**2 + merged + merged * out + out
    mergers = norm + mlp + see.taps * (2 * merged + mlp)
    whole = see.patch_width * see.hidden + (see.hidden + see.positions * see.hidden if see.positions else 0)
    return (math.ceil((see.depth * block + mergers) / tp) + whole) * width


def layers_per_stage(layers: int, pp: int, *, rest_last: bool = False) -> Parts:
    """Decoder layers of each pipeline stage as vLLM deals them: what is left over goes to the stages before the last.

    ``rest_last``: to the last, as up to 0.7 (get_pp_indices in vllm/distributed/utils.py@v0.7.3, v0.8.5).
    """
    parts = [layers // pp] * pp
    if rest_last:
        parts[-1] += layers % pp
        return tuple(parts)
    for back in range(2, layers % pp + 2):
        parts[-back] += 1
    return tuple(parts)


def layers_per_card(layers: int, devices: int) -> Parts:
    """Decoder layers of each card as the transformers server deals them: equal runs, the last is the shortest."""
    run = math.ceil(layers / devices)
    return tuple(max(0, min(run, layers - at * run)) for at in range(devices))


def stage_weights(model: Model, parts: Parts, at: int, tp: int) -> int:
    """Text weights of one card in pipeline stage ``at``: its layers, the table on the first, norm and head on the last.

    A tied head is the table itself, and a table of its own where first and last stage are different cards.
    """
    first, last = at == 0, at == len(parts) - 1
    total = parts[at] * decoder_layer(model, tp)
    if first:
        total += embedding_table(model, tp)
    if last:
        total += model.shape.hidden * 2
        if not first or not model.shape.tied:
            total += embedding_table(model, tp)
    return total


def kv_bytes(model: Model, layers: int, tp: int) -> int:
    """Keys and values of one token in ``layers`` layers on one of ``tp`` cards, 2 bytes a number."""
    return 2 * layers * max(1, model.shape.kv_heads // tp) * model.shape.head_dim * 2
