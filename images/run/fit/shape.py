"""The shape of a model: its decoder and its vision tower in numbers, as config.json has them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# config.json's model_type.
Family = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


@dataclass(frozen=True)
class Vision:
    """The vision tower. A patch is ``patch`` pixels square, and ``merge`` squared of them make one token.

    ``gated``: its MLP has three matrices and its norms no bias (Qwen2.5-VL), else two and a bias. ``positions`` rows of
    learned positions, and ``taps`` mergers beside the last block's (Qwen3-VL's deepstack).
    """

    intermediate: int
    depth: int = 32
    hidden: int = 1280
    heads: int = 16
    patch: int = 14
    temporal: int = 2
    merge: int = 2
    channels: int = 3
    gated: bool = True
    positions: int = 0
    taps: int = 0

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
    """A decoder and its vision tower, as config.json has them; ``unverified`` says what was not read there.

    ``family`` is config.json's model_type.
    """

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
    family: Family = "qwen2_5_vl"
