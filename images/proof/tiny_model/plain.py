"""The tiny Qwen2.5-VL without AWQ, for cards that an engine refuses AWQ on: the same weights, so the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from images.proof.tiny_model import checkpoint
from images.proof.tiny_model.weights import GROUP, Array, safetensors_bytes, unpack

PARTS = ("qweight", "qzeros", "scales")


def plain_tensors(tensors: dict[str, Array]) -> dict[str, Array]:
    """Each quantised linear as float16 [columns, rows], which holds every one of its weights exactly."""
    out = {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in PARTS}
    for name in (name for name in tensors if name.endswith(".qweight")):
        base = name.removesuffix(".qweight")
        words, zeros = (np.asarray(tensors[f"{base}.{part}"], dtype=np.int32) for part in PARTS[:2])
        scales = np.asarray(tensors[f"{base}.scales"], dtype=np.float64).repeat(GROUP, axis=0)
        steps = unpack(words) - unpack(zeros).repeat(GROUP, axis=0)
        out[f"{base}.weight"] = np.ascontiguousarray((steps * scales).T.astype(np.float16))
    return out


def write_plain(folder: Path) -> None:
    """Write the checkpoint to ``folder``, a new one or an earlier one of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny = checkpoint.QWEN2_5
    config = dict(tiny.made_by.config())
    config.pop("quantization_config")
    content = checkpoint.files(tiny)
    content["model.safetensors"] = safetensors_bytes(plain_tensors(tiny.tensors()))
    content["config.json"] = (json.dumps(config, indent=1, sort_keys=True) + "\n").encode()
    for name, body in content.items():
        (folder / name).write_bytes(body)
