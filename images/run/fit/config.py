"""The model that a config.json describes: a family that is known, in a form of weights that is known; else why not.

Pure. Every number has a bound, so that a file that lies makes no sum of nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from images.core import UsageError
from images.run.fit.families import KNOWN, SHAPES
from images.run.fit.model import Form, Model
from images.run.fit.shape import Family, Shape, Vision

_MOST = 10_000_000
_DOWNLOAD = "download the model's config.json anew"
_FAMILIES = ", ".join(known.title for known in KNOWN.values())
# What Qwen2.5-VL's tower has where its config.json says nothing (transformers/models/qwen2_5_vl).
_TOWER = {"qwen2_vl": (14, 1280), "qwen2_5_vl": (14, 1280), "qwen3_vl": (16, 1152)}


def from_config(data: Mapping[str, Any], source: str = "") -> Model:
    """The model of a config.json, in its flat form or with a text_config.

    Raises UsageError where its architecture is another one, a number lacks or cannot be, or its form is not known.
    """
    family, see = _family(data, source)
    if data.get("quantization") and not data.get("quantization_config"):
        raise UsageError(
            f"{source or 'config.json'} is nothing that the images serve",
            cause="its weights are quantised by MLX (the key quantization), which is for Apple's processors",
            do="the model it was made of, in 16 bits, AWQ or GPTQ",
        )
    inner = data.get("text_config")
    text = {**data, **(inner if isinstance(inner, Mapping) else {})}
    heads, hidden = _number(text, "num_attention_heads", source), _number(text, "hidden_size", source)
    shape = Shape(
        name="model",
        hidden=hidden,
        layers=_number(text, "num_hidden_layers", source),
        heads=heads,
        kv_heads=_number(text, "num_key_value_heads", source),
        intermediate=_number(text, "intermediate_size", source),
        vocab=_number(text, "vocab_size", source),
        tied=bool(text.get("tie_word_embeddings", False)),
        head_dim=_number(text, "head_dim", source, hidden // heads or None),
        positions=_number(text, "max_position_embeddings", source),
        vision=_vision(family, see, source),
        family=family,
    )
    # Told to be of a size that is published, it is advised that size's other forms.
    size = next((known.name for known in SHAPES.values() if replace(shape, **_own(known)) == known), shape.name)
    shape = replace(shape, name=size)
    return _quantised(shape, data.get("quantization_config") or text.get("quantization_config"), source)


def _own(known: Shape) -> dict[str, Any]:
    """What a checkpoint may have otherwise than the published one of its size."""
    return {
        name: getattr(known, name) for name in ("name", "intermediate", "vocab", "positions", "unverified", "vision")
    }


def _family(data: Mapping[str, Any], source: str) -> tuple[Family, Mapping[str, Any]]:
    """The family and its vision_config. A config of text alone, or of another architecture, is told by its name."""
    kind, see = data.get("model_type"), data.get("vision_config")
    for family in KNOWN:
        if kind == family and isinstance(see, Mapping):
            return family, see
    named = data.get("architectures")
    first = named[0] if isinstance(named, Sequence) and not isinstance(named, str) and named else None
    what = f"{first} ({kind})" if isinstance(first, str) else kind
    why = f"its architecture is {_shown(what)}" if what else "it names no architecture (model_type)"
    if isinstance(kind, str) and kind.endswith("_moe"):
        why += ", a mixture of experts, whose memory fit does not add up"
    elif kind in KNOWN:
        why += ", without a vision_config"
    raise UsageError(
        f"{source or 'config.json'} is not of a model that these images are for",
        cause=f"{why}; fit knows {_FAMILIES}",
        do="give the folder or config.json of such a model, or a name such as 7b-awq or qwen2-vl-7b",
    )


def _vision(family: Family, see: Mapping[str, Any], source: str) -> Vision:
    patch, hidden = _TOWER[family]
    channels = see.get("in_channels") or see.get("in_chans") or 3
    merge, temporal = _number(see, "spatial_merge_size", source, 2), _number(see, "temporal_patch_size", source, 2)
    if family == "qwen2_vl":  # hidden_size is that of what comes out
        hidden = _number(see, "embed_dim", source, hidden)
        ratio = see.get("mlp_ratio", 4)
        width = int(hidden * ratio) if isinstance(ratio, int | float) and 0 < ratio < 100 else 4 * hidden
    else:
        hidden, width = _number(see, "hidden_size", source), _number(see, "intermediate_size", source)
    taps = see.get("deepstack_visual_indexes", [8, 16, 24])
    third = family == "qwen3_vl"
    return Vision(
        intermediate=width,
        depth=_number(see, "depth", source),
        hidden=hidden,
        heads=_number(see, "num_heads", source),
        patch=_number(see, "patch_size", source, patch),
        temporal=temporal,
        merge=merge,
        channels=channels if isinstance(channels, int) and 0 < channels < _MOST else 3,
        gated=family == "qwen2_5_vl",
        positions=_number(see, "num_position_embeddings", source, 2304) if third else 0,
        taps=len(taps) if third and isinstance(taps, Sequence) else 0,
    )


def _number(data: Mapping[str, Any], key: str, source: str, usual: int | None = None) -> int:
    value = data.get(key, usual)
    value = usual if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _MOST:
        raise UsageError(
            f"{source or 'config.json'}: {key} is {_shown(value)}",
            cause=f"a whole number above 0 and below {_MOST} is needed there",
            do=_DOWNLOAD,
        )
    return value


def _quantised(shape: Shape, settings: Any, source: str) -> Model:
    if not settings:
        return Model(shape, source=source)
    if not isinstance(settings, Mapping):
        raise UsageError(f"{source or 'config.json'}: quantization_config holds no settings", do=_DOWNLOAD)
    method = str(settings.get("quant_method", "")).lower()
    if method in ("awq", "gptq"):
        return _grouped(shape, method, settings, source)
    if method == "fp8":
        blocks = settings.get("weight_block_size")
        return Model(shape, "fp8", group=_block(blocks, source), method=method, source=source)
    if method == "compressed-tensors":
        return _compressed(shape, settings, source)
    if method == "bitsandbytes":
        raise _unknown(
            source,
            "the form bitsandbytes",
            "no image holds the package bitsandbytes, and vLLM 0.32 and newer do not know the form",
        )
    what = f"the form {_shown(method)}" if method else "a quantization_config without quant_method"
    raise _unknown(source, what, "there is no rule with a source for which server computes it on which card")


def _grouped(shape: Shape, method: str, settings: Mapping[str, Any], source: str) -> Model:
    """AWQ and GPTQ: both have groups and zero points, GPTQ several widths and an order of inputs."""
    bits = settings.get("bits", settings.get("w_bit"))
    group = settings.get("group_size", settings.get("q_group_size"))
    widths = (4,) if method == "awq" else (2, 3, 4, 8)
    if bits not in widths:
        told = "no number of bits" if bits is None else f"{_shown(bits)} bits"
        able = "4 bits" if method == "awq" else "2, 3, 4 or 8 bits"
        raise _unknown(source, f"{method.upper()} with {told}", f"servers take {method.upper()} with {able}")
    if not isinstance(group, int) or isinstance(group, bool) or not (group == -1 or 0 < group < _MOST):
        told = "without a group_size" if group is None else f"in groups of {_shown(group)}"
        raise _unknown(source, f"{method.upper()} {told}", "group_size is a whole number above 0, or -1 for one group")
    form: Form = "awq" if method == "awq" else "gptq"
    symmetric = not settings.get("zero_point", True) if method == "awq" else settings.get("sym", True) is not False
    order = bool(settings.get("desc_act", False)) and group != -1
    return Model(shape, form, "", group, int(bits), symmetric=symmetric, act_order=order, method=method, source=source)


def _compressed(shape: Shape, settings: Mapping[str, Any], source: str) -> Model:
    """compressed-tensors: weights of 4 or 8 bits alone, or int8 or FP8 for weights and activations."""
    groups = settings.get("config_groups")
    found = [one for one in groups.values() if isinstance(one, Mapping)] if isinstance(groups, Mapping) else []
    if len(found) != 1 or not isinstance(found[0].get("weights"), Mapping):
        raise _unknown(source, f"compressed-tensors with {len(found)} groups of layers", "fit adds up one form a model")
    weights, inputs = found[0]["weights"], found[0].get("input_activations")
    kind, bits, strategy = weights.get("type"), weights.get("num_bits"), weights.get("strategy")
    method, symmetric = "compressed-tensors", weights.get("symmetric", True) is not False
    if kind == "float" and bits == 8:
        blocks = _block(weights.get("block_structure"), source) if strategy == "block" else 0
        return Model(shape, "fp8", group=blocks, method=method, source=source)
    if kind == "int" and bits == 8 and isinstance(inputs, Mapping) and inputs.get("num_bits") == 8 and symmetric:
        return Model(shape, "int8", group=0, method=method, source=source)
    if kind == "int" and bits in (4, 8) and not inputs and strategy in ("group", "channel"):
        size = weights.get("group_size")
        group = size if strategy == "group" and isinstance(size, int) and 0 < size < _MOST else -1
        order = weights.get("actorder") == "group"
        return Model(
            shape, "wna16", "", group, bits, symmetric=symmetric, act_order=order, method=method, source=source
        )
    told = f"weights of {_shown(bits)} bits ({_shown(kind)}, {_shown(strategy)})"
    told += f" and activations of {_shown(inputs.get('num_bits'))}" if isinstance(inputs, Mapping) else ""
    able = "fit knows int with 4 or 8 bits by group or channel, int8 for both, and FP8"
    raise _unknown(source, f"compressed-tensors with {told}", able)


def _block(size: Any, source: str) -> int:
    """Blocks are square, of 128: what servers take."""
    if size is None:
        return 0
    if list(size) != [128, 128] if isinstance(size, Sequence) and not isinstance(size, str) else True:
        raise _unknown(source, f"FP8 in blocks of {_shown(size)}", "servers take blocks of 128 by 128")
    return 128


def _unknown(source: str, what: str, why: str) -> UsageError:
    return UsageError(
        f"{source or 'config.json'} has {what}, which cannot be served here",
        cause=why,
        do="take the model in 16 bits, AWQ, GPTQ, compressed-tensors (W4A16, W8A8) or FP8",
        where="docs/compatibility.md, forms of weights",
    )


def _shown(value: object) -> str:
    """A value of the file in a sentence: short, and nothing in it that a terminal obeys."""
    return repr(str(value)[:60])[1:-1]
