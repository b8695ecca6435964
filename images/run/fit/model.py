"""Models as fit sees them: shapes of Qwen2.5-VL, in 16 bits or 4, and of any config.json of its kind. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from images.core import UsageError

Form = Literal["16-bit", "awq", "gptq"]
Dtype = Literal["", "float16", "bfloat16"]


@dataclass(frozen=True)
class Vision:
    """The vision tower. A patch is ``patch`` pixels square, and ``merge`` squared of them make one token."""

    intermediate: int
    depth: int = 32
    hidden: int = 1280
    heads: int = 16
    patch: int = 14
    temporal: int = 2
    merge: int = 2
    channels: int = 3

    @property
    def pixels_a_token(self) -> int:
        """784 for patches of 14, merged 2 by 2."""
        return (self.patch * self.merge) ** 2

    @property
    def patch_width(self) -> int:
        """Numbers in one patch as the processor hands it over: 1176."""
        return self.channels * self.temporal * self.patch**2


@dataclass(frozen=True)
class Shape:
    """A decoder and its vision tower, as config.json has them; ``unverified`` says what was not read there."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool
    vision: Vision
    head_dim: int = 128
    positions: int = 128000
    unverified: str = ""


@dataclass(frozen=True)
class Model:
    """A shape in a form: 16 bits a weight, or 4 in groups of ``group`` along the input.

    ``dtype`` is the one asked for ("": whichever the card computes); ``source`` is the repository or folder.
    """

    shape: Shape
    form: Form = "16-bit"
    dtype: Dtype = ""
    group: int = 128
    source: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """As typed: "7b-awq"."""
        kind = {"": "", "float16": "-fp16", "bfloat16": "-bf16"}[self.dtype] if self.form == "16-bit" else self.form
        return f"{self.shape.name}{kind}" if self.form == "16-bit" else f"{self.shape.name}-{kind}"


# Facts of compatibility.md, section 7: the published config.json of 3B (a full copy) and 32B-AWQ; 7B from the copy in a
# training script; 72B from Qwen2.5-72B and the documentation.
SHAPES = {
    "3b": Shape("3b", 2048, 36, 16, 2, 11008, 151936, True, Vision(3420)),
    "7b": Shape("7b", 3584, 28, 28, 4, 18944, 152064, False, Vision(3420)),
    "32b": Shape("32b", 5120, 64, 40, 8, 27648, 152064, False, Vision(3456)),
    "72b": Shape(
        "72b", 8192, 80, 64, 8, 29568, 152064, False, Vision(3456), unverified="the vision tower's width, 3456"
    ),
}
# The published 72B-AWQ is padded from 29568, which is 231 groups of 128 and cannot be cut in two (QwenVL#831).
PADDED_72B = 29696
_FORMS: dict[str, tuple[Form, Dtype]] = {
    "": ("16-bit", ""),
    "fp16": ("16-bit", "float16"),
    "half": ("16-bit", "float16"),
    "bf16": ("16-bit", "bfloat16"),
    "awq": ("awq", ""),
    "gptq": ("gptq", ""),
}
_SHORT = re.compile(r"(\d+b)(?:-([a-z0-9]+))?")
_LONG = re.compile(r"(?:[a-z0-9_.-]+/)?qwen2\.5-vl-(\d+b)-instruct(?:-(awq|gptq)[a-z0-9-]*)?")


def model_by_name(text: str) -> Model | None:
    """The model that "7b-awq" or "Qwen/Qwen2.5-VL-7B-Instruct-AWQ" means; None for what is neither.

    Raises UsageError for a size or form that there is not.
    """
    typed = text.strip().lower()
    match = _SHORT.fullmatch(typed) or _LONG.fullmatch(typed)
    if match is None:
        return None
    size, kind = match[1], match[2] or ""
    if size not in SHAPES or kind not in _FORMS:
        raise UsageError(
            f"there is no Qwen2.5-VL {text!r}",
            do=f"sizes: {', '.join(SHAPES)}; forms: {', '.join(form for form in _FORMS if form)}, such as 7b-awq",
        )
    form, dtype = _FORMS[kind]
    shape = SHAPES[size]
    if form == "awq" and size == "72b":
        shape = replace(shape, intermediate=PADDED_72B)
    if form == "gptq":
        shape = replace(shape, unverified="the shapes: there is no official GPTQ form; groups of 128 are assumed")
    suffix = {"16-bit": "", "awq": "-AWQ", "gptq": "-GPTQ"}[form]
    source = f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct{suffix}" if form != "gptq" else ""
    return Model(shape, form, dtype, source=source)


def from_config(data: Mapping[str, Any], source: str = "") -> Model:
    """The model of a config.json, in its flat form or with a text_config.

    Raises UsageError where it is not of Qwen2.5-VL's kind, lacks a number, or is quantised another way.
    """
    inner = data.get("text_config")
    text = {**data, **(inner if isinstance(inner, Mapping) else {})}
    if data.get("model_type") != "qwen2_5_vl" or not isinstance(data.get("vision_config"), Mapping):
        raise UsageError(
            f"{source or 'config.json'} is not of a Qwen2.5-VL model",
            cause=f"its model_type is {data.get('model_type')!r}, and fit knows qwen2_5_vl",
            do="give the folder or config.json of a Qwen2.5-VL model, or a name such as 7b-awq",
        )
    see = data["vision_config"]
    heads = _number(text, "num_attention_heads", source)
    hidden = _number(text, "hidden_size", source)
    shape = Shape(
        name="model",
        hidden=hidden,
        layers=_number(text, "num_hidden_layers", source),
        heads=heads,
        kv_heads=_number(text, "num_key_value_heads", source),
        intermediate=_number(text, "intermediate_size", source),
        vocab=_number(text, "vocab_size", source),
        tied=bool(text.get("tie_word_embeddings", False)),
        head_dim=int(text.get("head_dim") or hidden // heads),
        positions=_number(text, "max_position_embeddings", source),
        vision=Vision(
            intermediate=_number(see, "intermediate_size", source),
            depth=_number(see, "depth", source),
            hidden=_number(see, "hidden_size", source),
            heads=_number(see, "num_heads", source),
            patch=int(see.get("patch_size", 14)),
            temporal=int(see.get("temporal_patch_size", 2)),
            merge=int(see.get("spatial_merge_size", 2)),
            channels=int(see.get("in_channels") or see.get("in_chans") or 3),
        ),
    )
    return _quantised(shape, data.get("quantization_config"), source)


def _number(data: Mapping[str, Any], key: str, source: str) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(
            f"{source or 'config.json'}: {key} is {value!r}",
            cause="a whole number above 0 is needed there",
            do="download the model's config.json anew",
        )
    return value


def _quantised(shape: Shape, settings: Any, source: str) -> Model:
    if not settings:
        return Model(shape, source=source)
    method = str(settings.get("quant_method", "")).lower()
    bits = settings.get("bits", settings.get("w_bit"))
    group = settings.get("group_size", settings.get("q_group_size"))
    if method not in ("awq", "gptq") or bits != 4 or not isinstance(group, int) or group < 1:
        raise UsageError(
            f"{source or 'config.json'}: fit does not know this quantisation ({method or 'no method'}, {bits} bits, "
            f"groups of {group})",
            do="take a model in AWQ or GPTQ with 4 bits in groups, or in 16 bits",
        )
    return Model(shape, "awq" if method == "awq" else "gptq", group=group, source=source)
