"""What the tiny Qwen2.5-VL answers to text, computed in numpy and float64: for whoever has no torch.

The decoder of transformers' modeling_qwen2_5_vl.py without pictures: all three positions of mrope are then the same
number, so that it is plain rotary embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from images.proof.tiny_model import qwen2_5_vl
from images.proof.tiny_model.checkpoint import QWEN2_5
from images.proof.tiny_model.weights import GROUP, HEAD_DIM, HEADS, KV_HEADS, LAYERS, Array, unpack

Numbers = npt.NDArray[np.float64]


def text_logits(ids: Sequence[int]) -> Numbers:
    """Logits [tokens, vocabulary] after each token of ``ids``, which hold no picture."""
    weights = QWEN2_5.tensors()
    settings = qwen2_5_vl.config()
    epsilon = float(str(settings["rms_norm_eps"]))
    rotary = _rotary(len(ids), float(str(settings["rope_theta"])))
    states: Numbers = weights["model.embed_tokens.weight"].astype(np.float64)[list(ids)]
    for name in (f"model.layers.{index}" for index in range(LAYERS)):
        normed = _norm(states, weights[f"{name}.input_layernorm.weight"], epsilon)
        states = states + _attention(normed, weights, f"{name}.self_attn", rotary)
        normed = _norm(states, weights[f"{name}.post_attention_layernorm.weight"], epsilon)
        gate = normed @ _awq(weights, f"{name}.mlp.gate_proj")
        inner = gate / (1 + np.exp(-gate)) * (normed @ _awq(weights, f"{name}.mlp.up_proj"))
        states = states + inner @ _awq(weights, f"{name}.mlp.down_proj")
    normed = _norm(states, weights["model.norm.weight"], epsilon)
    return np.asarray(normed @ weights["lm_head.weight"].astype(np.float64).T)


def _norm(states: Numbers, weight: Array, epsilon: float) -> Numbers:
    scale = np.sqrt(np.mean(states**2, axis=-1, keepdims=True) + epsilon)
    return np.asarray(states / scale * weight.astype(np.float64))


def _awq(weights: Mapping[str, Any], name: str) -> Numbers:
    """A quantised linear as a matrix [inputs, outputs]."""
    zeros, scales = unpack(weights[f"{name}.qzeros"]), weights[f"{name}.scales"].astype(np.float64)
    whole = unpack(weights[f"{name}.qweight"])
    return np.asarray((whole - zeros.repeat(GROUP, axis=0)) * scales.repeat(GROUP, axis=0))


def _rotary(length: int, theta: float) -> tuple[Numbers, Numbers]:
    """Cosines and sines [tokens, head]."""
    inverse = theta ** -(np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = np.outer(np.arange(length), inverse)
    both = np.concatenate([angles, angles], axis=1)
    return np.cos(both), np.sin(both)


def _rotate(heads: Numbers, rotary: tuple[Numbers, Numbers]) -> Numbers:
    """Rotary embedding of [heads, tokens, head]."""
    cosine, sine = rotary
    half = HEAD_DIM // 2
    turned = np.concatenate([-heads[..., half:], heads[..., :half]], axis=-1)
    return np.asarray(heads * cosine + turned * sine)


def _attention(states: Numbers, weights: Mapping[str, Any], name: str, rotary: tuple[Numbers, Numbers]) -> Numbers:
    def heads(part: str, count: int) -> Numbers:
        out = states @ _awq(weights, f"{name}.{part}_proj") + weights[f"{name}.{part}_proj.bias"].astype(np.float64)
        return np.asarray(out.reshape(len(states), count, HEAD_DIM).transpose(1, 0, 2))

    asked = _rotate(heads("q", HEADS), rotary)
    known = _rotate(heads("k", KV_HEADS), rotary).repeat(HEADS // KV_HEADS, axis=0)
    told = heads("v", KV_HEADS).repeat(HEADS // KV_HEADS, axis=0)
    scores = asked @ known.transpose(0, 2, 1) / np.sqrt(HEAD_DIM)
    scores = np.where(np.tri(len(states), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    seen = (shares / shares.sum(axis=-1, keepdims=True)) @ told
    return np.asarray(seen.transpose(1, 0, 2).reshape(len(states), -1) @ _awq(weights, f"{name}.o_proj"))
