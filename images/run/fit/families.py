"""The published models of the Qwen-VL families, and which servers know a family: each with its source. Pure.

Parameters of every shape here are as many as transformers counts for the same numbers (test_families.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from images.run.fit.shape import Family, Shape, Vision

# compatibility.md, section 7: the published config.json of 3B (a full copy) and 32B-AWQ; 7B from the copy in a training
# script; 72B from Qwen2.5-72B and the documentation.
SHAPES = {
    "3b": Shape("3b", 2048, 36, 16, 2, 11008, 151936, True, Vision(3420)),
    "7b": Shape("7b", 3584, 28, 28, 4, 18944, 152064, False, Vision(3420)),
    "32b": Shape("32b", 5120, 64, 40, 8, 27648, 152064, False, Vision(3456)),
    "72b": Shape(
        "72b", 8192, 80, 64, 8, 29568, 152064, False, Vision(3456), unverified="the vision tower's width, 3456"
    ),
}
# The published quantised 72B of Qwen2.5-VL and Qwen2-VL are padded from 29568, which is 231 groups of 128 and cannot be
# cut in two (QwenVL#831, #230, #231).
PADDED_72B = 29696


def _second(size: str, *numbers: int, tied: bool = False) -> Shape:
    """A Qwen2-VL: the tower of transformers' configuration_qwen2_vl.py, whose MLP is four times as wide as it."""
    hidden, layers, heads, kv_heads, intermediate, vocab = numbers
    vision = Vision(4 * 1280, gated=False)
    name = f"qwen2-vl-{size}"
    return Shape(
        name, hidden, layers, heads, kv_heads, intermediate, vocab, tied, vision, positions=32768, family="qwen2_vl"
    )


def _third(size: str, vision: Vision, *numbers: int, tied: bool = False) -> Shape:
    """A dense Qwen3-VL; its heads are 128 wide whatever the width is."""
    hidden, layers, heads, intermediate = numbers
    name = f"qwen3-vl-{size}"
    return Shape(
        name, hidden, layers, heads, 8, intermediate, 151936, tied, vision, positions=262144, family="qwen3_vl"
    )


# 2B and 7B: Qwen2-1.5B's and Qwen2-7B's decoders (vocabulary of 151936 and 152064); 72B: Qwen2-72B's.
SHAPES |= {
    "qwen2-vl-2b": _second("2b", 1536, 28, 12, 2, 8960, 151936, tied=True),
    "qwen2-vl-7b": _second("7b", 3584, 28, 28, 4, 18944, 152064),
    "qwen2-vl-72b": _second("72b", 8192, 80, 64, 8, 29568, 152064),
}
# configuration_qwen3_vl.py has the large tower; the small one and the decoders (Qwen3's) are as others load them.
_SMALL = Vision(4096, 24, 1024, 16, 16, gated=False, positions=2304, taps=3)
_LARGE = Vision(4304, 27, 1152, 16, 16, gated=False, positions=2304, taps=3)
SHAPES |= {
    "qwen3-vl-2b": _third("2b", _SMALL, 2048, 28, 16, 6144, tied=True),
    "qwen3-vl-4b": _third("4b", _SMALL, 2560, 36, 32, 9728, tied=True),
    "qwen3-vl-8b": _third("8b", _LARGE, 4096, 36, 32, 12288),
    "qwen3-vl-32b": _third("32b", _LARGE, 5120, 64, 64, 25600),
}
# Forms that Qwen publishes, as the ends of their repositories' names.
PUBLISHED = {
    ("qwen2_5_vl", "-AWQ"),
    ("qwen2_vl", "-AWQ"),
    ("qwen2_vl", "-GPTQ-Int4"),
    ("qwen2_vl", "-GPTQ-Int8"),
    ("qwen3_vl", "-FP8"),
}


@dataclass(frozen=True)
class Known:
    """From which vLLM and transformers on a family is served, and where that stands."""

    title: str
    vllm: Version
    transformers: Version
    source: str


KNOWN: dict[Family, Known] = {
    "qwen2_vl": Known(
        "Qwen2-VL",
        Version("0.7.3"),  # the oldest of the matrix; it was read there
        Version("4.49"),
        "vllm/model_executor/models/qwen2_vl.py@v0.7.3; transformers/models/qwen2_vl@v4.49.0",
    ),
    "qwen2_5_vl": Known("Qwen2.5-VL", Version("0.7.3"), Version("4.49"), "matrix.yaml: qwen25vl-needs-vllm"),
    "qwen3_vl": Known(
        "Qwen3-VL",
        Version("0.11"),
        Version("4.57"),
        "vllm/model_executor/models/qwen3_vl.py@v0.11.0, none @v0.9.2; transformers/models/qwen3_vl@v4.57.6",
    ),
}
