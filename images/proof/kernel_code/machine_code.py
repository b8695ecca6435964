"""What the machine code of an image's attention holds for its cards: the tensor cores' instructions, or none. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from images.cards import limits_of

# The tensor cores' instructions by what nvdisasm calls them; UTC is Blackwell's.
MATRIX = ("HMMA", "IMMA", "QMMA", "HGMMA", "IGMMA", "QGMMA", "UTCMMA")


@dataclass(frozen=True)
class AttentionCode:
    """Where an attention's machine code is: globs below site-packages, and what its functions have in their names."""

    libraries: tuple[str, ...]
    named: str
    source: str


# By the attention of the matrix; the part that counts is what reads prompts and pictures. xformers (0.0.28 and newer)
# and torch's scaled_dot_product_attention both call torch's own kernels.
_TORCH = AttentionCode(
    ("torch/lib/libtorch_cuda.so",), "fmha_cutlassF_", "xformers/ops/fmha/cutlass.py@0.0.29.post2: cutlassF-pt"
)
CODE: Mapping[str, AttentionCode] = {
    "xformers": _TORCH,
    "sdpa": _TORCH,
    "flash-attn": AttentionCode(
        ("vllm/vllm_flash_attn/*.so", "flash_attn_2_cuda*.so"), "flash", "vllm/vllm_flash_attn/flash_attn_interface.py"
    ),
    "flashinfer": AttentionCode(("flashinfer_jit_cache/**/*.so",), "", "images/kernels/inside/jit_cache.py"),
}


@dataclass(frozen=True)
class CodeVerdict:
    """``rows``: library, card and counts; ``idle``: cards whose tensor cores no instruction uses; ``none``: cards
    without machine code (the driver compiles PTX there); ``unread``: why some could not be read."""

    rows: tuple[Mapping[str, Any], ...]
    idle: tuple[str, ...]
    none: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def told(self) -> str:
        """In a few words: "HMMA in attention's machine code on 7.5"."""
        by_card: dict[str, list[str]] = {}
        for row in self.rows:
            by_card.setdefault(str(row["on"]), []).extend(name for name in MATRIX if row.get(name))
        words = [f"{'+'.join(dict.fromkeys(names)) or 'no tensor cores'} on {card}" for card, names in by_card.items()]
        return f"attention's machine code: {', '.join(words)}" if words else ""


def judge_code(told: Mapping[str, Any], archs: Sequence[str]) -> CodeVerdict:
    """What count_machine_code.py printed, for an image's cards."""
    rows = [
        {"library": library, "on": arch, **counts}
        for library, by_arch in told["libraries"].items()
        for arch, counts in by_arch.items()
    ]
    idle, none = [], []
    for arch in archs:
        own = [row for row in rows if row["on"] == arch]
        if not own:
            none.append(arch)
        elif limits_of(arch).tensor_cores and not any(row.get(name) for row in own for name in MATRIX):
            idle.append(arch)
    return CodeVerdict(tuple(rows), tuple(idle), tuple(none), tuple(told["unread"]))
