"""Models as fit sees them: a shape in a form of weights, and the names that people type for one. Pure.

What the published models are: families.py; what a config.json says: config.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from images.core import UsageError
from images.run.fit.families import PADDED_72B, PUBLISHED, SHAPES
from images.run.fit.shape import Shape

# How the decoder's linears are kept; "wna16" is compressed-tensors with 16-bit activations, "int8" with 8-bit ones.
Form = Literal["16-bit", "awq", "gptq", "wna16", "fp8", "int8"]
Dtype = Literal["", "float16", "bfloat16"]
_BITS: dict[Form, int] = {"16-bit": 16, "awq": 4, "gptq": 4, "wna16": 4, "fp8": 8, "int8": 8}


@dataclass(frozen=True)
class Model:
    """A shape in a form: ``bits`` a weight (0: the form's usual), with a scale for each ``group`` along the input.

    ``group`` -1: one for the whole input. Of fp8: 0 for a scale of its own for each output or matrix, else blocks of
    ``group`` by ``group``. ``symmetric``: no zero points. ``act_order``: GPTQ's order of inputs. ``method``: who wrote
    the form, as quant_method of config.json has it. ``dtype`` is the one asked for ("": whichever the card computes);
    ``source`` is the repository or folder.
    ``called`` is what people know it by where that is not one of fit's own names: OWNER/NAME, or a folder.
    """

    shape: Shape
    form: Form = "16-bit"
    dtype: Dtype = ""
    group: int = 128
    bits: int = 0
    symmetric: bool = True
    act_order: bool = False
    method: str = ""
    source: str = field(default="", compare=False)
    called: str = field(default="", compare=False)

    @property
    def weight_bits(self) -> int:
        """Bits of one weight of the decoder's linears."""
        return self.bits or _BITS[self.form]

    @property
    def told(self) -> str:
        """ "4 bits in groups of 128"."""
        if self.form == "16-bit":
            return "2 bytes each"
        if self.form == "fp8":
            return "8 bits (FP8)" + (f" in blocks of {self.group} by {self.group}" if self.group else "")
        if self.form == "int8":
            return "8 bits (int8)"
        groups = "one group an output" if self.group < 0 else f"groups of {self.group}"
        return f"{self.weight_bits} bits in {groups}"

    @property
    def assumed(self) -> bool:
        """Whether the form is known by a name alone, and nobody read how its weights are grouped."""
        return self.form != "16-bit" and bool(self.shape.unverified) and (bool(self.called) or not self.source)

    @property
    def name(self) -> str:
        """As typed: "7b-awq"; of what is not published, as its owner calls it."""
        if self.called:
            return self.called
        if self.form == "16-bit":
            return self.shape.name + {"": "", "float16": "-fp16", "bfloat16": "-bf16"}[self.dtype]
        usual = {"wna16": "w4a16", "int8": "w8a8"}.get(self.form, self.form)
        if self.weight_bits != _BITS[self.form]:
            usual = {"wna16": f"w{self.weight_bits}a16"}.get(self.form, f"{self.form}-int{self.weight_bits}")
        return f"{self.shape.name}-{usual}"


@dataclass(frozen=True)
class _Named:
    """What a form's name means: form, dtype asked for, bits of a weight, group."""

    form: Form
    dtype: Dtype = ""
    bits: int = 0
    group: int = 128


_FORMS = {
    "": _Named("16-bit"),
    "fp16": _Named("16-bit", "float16"),
    "half": _Named("16-bit", "float16"),
    "bf16": _Named("16-bit", "bfloat16"),
    "awq": _Named("awq"),
    "gptq": _Named("gptq"),
    "gptq-int4": _Named("gptq"),
    "gptq-int8": _Named("gptq", bits=8),
    "fp8": _Named("fp8", group=0),
    "w4a16": _Named("wna16"),
    "w8a16": _Named("wna16", bits=8),
    "w8a8": _Named("int8", group=0),
}
_NAME = re.compile(
    r"(?:(?P<owner>[a-z0-9_.-]+)/)?(?:(?P<family>qwen(?:2\.5|2|3)-vl)-)?(?P<size>\d+b)(?P<long>-instruct)?"
    r"(?:-(?P<form>[a-z0-9-]+))?"
)


def model_by_name(text: str) -> Model | None:
    """The model that "7b-awq", "qwen2-vl-7b" or "Qwen/Qwen2.5-VL-7B-Instruct-AWQ" means; None for what is neither.

    A name is read whole: a suffix that is not known makes it another model. Raises UsageError for a size or form that
    there is not.
    """
    match = _NAME.fullmatch(text.strip().lower())
    if match is None or (match["owner"] and not (match["family"] and match["long"])):
        return None
    family, size, kind = match["family"] or "", match["size"], match["form"] or ""
    key = size if family in ("", "qwen2.5-vl") else f"{family}-{size}"
    if key not in SHAPES or kind not in _FORMS:
        if match["owner"] not in (None, "qwen") or (match["long"] and key in SHAPES):
            return None
        sizes = ", ".join(name for name, shape in SHAPES.items() if shape.family == _FAMILIES[family])
        raise UsageError(
            f"there is no {_TITLES[family]} {text!r}",
            do=f"sizes: {sizes}; forms: {', '.join(form for form in _FORMS if form)}, such as 7b-awq",
        )
    return _made(SHAPES[key], _FORMS[kind])


_FAMILIES = {"": "qwen2_5_vl", "qwen2.5-vl": "qwen2_5_vl", "qwen2-vl": "qwen2_vl", "qwen3-vl": "qwen3_vl"}
_TITLES = {"": "Qwen2.5-VL", "qwen2.5-vl": "Qwen2.5-VL", "qwen2-vl": "Qwen2-VL", "qwen3-vl": "Qwen3-VL"}


def _made(shape: Shape, named: _Named) -> Model:
    """The published checkpoint of this shape and form, or the form as it is usually made where nobody published it."""
    ends: dict[Form, str] = {"awq": "-AWQ", "fp8": "-FP8", "gptq": f"-GPTQ-Int{named.bits or 4}"}
    suffix = ends.get(named.form, "")
    group = 128 if named.form == "fp8" and shape.family == "qwen3_vl" else named.group
    source = ""
    if named.form == "16-bit" or (shape.family, suffix) in PUBLISHED:
        size = shape.name.rpartition("-")[2].upper()
        source = f"Qwen/{_TITLES[shape.name.rpartition('-')[0]]}-{size}-Instruct{suffix}"
        if named.form != "16-bit" and shape.intermediate == 29568:
            shape = replace(shape, intermediate=PADDED_72B)
    else:
        of = f"; groups of {group} are assumed" if group > 0 else ""
        shape = replace(shape, unverified=f"the shapes: there is no official {named.form} form{of}")
    method = "compressed-tensors" if named.form in ("wna16", "int8") else named.form
    return Model(
        shape,
        named.form,
        named.dtype,
        group,
        named.bits,
        symmetric=named.form != "awq",
        method="" if named.form == "16-bit" else method,
        source=source,
    )
