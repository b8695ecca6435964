"""Accelerators of other makers by the names people type, so that they are told as such. Pure.

Only what NVIDIA has no card of is looked up here: a name that is one of NVIDIA's is found before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Maker:
    """Who makes it, what its programs are called, and what serves the model there."""

    name: str
    instead: str


_OWN_BUILD = "vLLM's own build for"
_MAKERS = (
    (
        Maker("AMD", f"{_OWN_BUILD} ROCm"),
        r"amd|radeon|instinct|firepro|ryzen|epyc|rocm|strix|gfx\d{3,4}[a-z]?|mi ?\d{2,3}[axp]?|rx ?\d{3,4}.*|"
        r"w[67]\d00x?|[67]9[05]0 ?(?:xtx?|gre)|[679]\d{3} ?xtx?|r9700|9060|9070|vega",
    ),
    (
        Maker("Intel", f"{_OWN_BUILD} XPU, or for Gaudi vllm-gaudi"),
        r"intel|arc|gaudi ?\d?|hpu|xpu|iris|xe|habana|ponte|flex|"
        r"a[3-7][1578]0m?|b[56][678]0|b[56]0|max ?1[15]\d0|hl ?\d{3}[a-z]?",
    ),
    (
        Maker("Apple", "MLX (mlx-vlm) or llama.cpp on this computer"),
        r"apple|mac|macbook|imac|metal|m[1-9] ?(?:pro|max|ultra)?",
    ),
    (
        Maker("Huawei", f"{_OWN_BUILD} Ascend: vllm-ascend"),
        r"huawei|ascend|atlas|npu|910[a-c]?\d?|310p?\d?|300[iv](?: ?duo)?",
    ),
    (
        Maker("Hygon", "the maker's own vLLM for DCU"),
        r"hygon|dcu|[kz]100(?:[_ -]?(?:ai|l))?|bw1[0-9]{2,3}",
    ),
    (Maker("Cambricon", "the maker's own vLLM for MLU"), r"cambricon|mlu ?\d*.*"),
    (Maker("Moore Threads", "the maker's own vLLM for MUSA"), r"moore|mtt|musa|s[345]000|s80"),
    (Maker("MetaX", "the maker's own vLLM for MACA"), r"metax|maca|m?x?c[56][05]0"),
    (Maker("Iluvatar", "the maker's own vLLM"), r"iluvatar|corex|bi|mr|tg"),
    (Maker("Biren", "the maker's own vLLM"), r"biren|br1\d\d[a-z]?"),
    (Maker("Enflame", "the maker's own vLLM for GCU"), r"enflame|gcu|topsrider"),
    (Maker("Kunlunxin", "the maker's own vLLM"), r"kunlun|kunlunxin|p800|r200"),
    (Maker("Google", f"{_OWN_BUILD} TPU"), r"google|tpu|v[4-7][ep]|trillium|ironwood"),
    (Maker("AWS", "vLLM with AWS Neuron"), r"aws|trainium\d?|trn[123].*|inferentia\d?|inf[12].*|neuron"),
    (Maker("Qualcomm", "the maker's own software"), r"qualcomm|snapdragon|adreno|aic100"),
    (Maker("Tenstorrent", "the maker's own vLLM"), r"tenstorrent|wormhole|blackhole|n[13]50[a-z]?|p1[05]0[a-z]?"),
    (
        Maker("another maker", "that maker's own software"),
        r"groq|lpu|cerebras|graphcore|ipu|sambanova|rebellions|furiosa|rngd|hailo|rockchip|rk3588|mali|powervr|"
        r"exynos|dimensity|mediatek|vulkan|opencl",
    ),
)
_PATTERNS = tuple((maker, re.compile(pattern)) for maker, pattern in _MAKERS)


def other_maker(name: str) -> Maker | None:
    """Who makes what this name stands for, if it is one of the others."""
    text = " ".join(re.sub(r"[^a-z0-9.]+", " ", name.lower()).split())
    words = text.split()
    if {"nvidia", "geforce", "quadro", "tesla", "rtx", "gtx"} & set(words):
        return None
    pairs = [" ".join(pair) for pair in pairwise(words)]
    for said in ([text], words, pairs):
        for maker, pattern in _PATTERNS:
            if any(pattern.fullmatch(part) for part in said):
                return maker
    return None
