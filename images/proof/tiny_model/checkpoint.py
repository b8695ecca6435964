"""Tiny AWQ-quantised models of each family, the same bytes on every machine, with no download.

Two text layers, two vision blocks, mrope, AWQ "gemm" weights for the text linears, float16 for the rest, in the form of
config.json and tensor names that is published. The tiny Qwen2.5-VL is read by transformers 4.49 to 5.x and vLLM 0.7 to
0.33. Every weight has few enough bits to be exact in float16, bfloat16 and float32 alike, so engines of different
precision differ by their activations only. The weights are random, save those rows of the output head that golden.py
has taught to answer, so that the right token leads by several logits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from images.core import UsageError
from images.proof.tiny_model import qwen2_5_vl, qwen2_vl, qwen3_vl, tokenizer
from images.proof.tiny_model.weights import Array, output_head, safetensors_bytes

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Tiny:
    """A tiny model of a family. ``golden`` has its answers, and, under "head", what golden.py taught it, unless
    ``head`` is a file of its own; ``side`` pixels are merged into one token along a side.

    ``transformers``: the oldest that knows the family.
    """

    family: str
    made_by: ModuleType
    golden: Path
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    transformers: str = "0"
    head: Path | None = None

    @property
    def name(self) -> str:
        """What it is served as."""
        return "cardstock-tiny" if self.head else f"cardstock-tiny-{self.family.replace('_', '-')}"

    def taught(self) -> Mapping[str, Any]:
        """Rows of the output head, by token; none before it was taught."""
        if self.head:
            return dict(json.loads(self.head.read_text())) if self.head.exists() else {}
        return dict(json.loads(self.golden.read_text()).get("head", {})) if self.golden.exists() else {}

    def tensors(self) -> dict[str, Array]:
        """Every tensor of the checkpoint by name."""
        out: dict[str, Array] = self.made_by.tensors()
        return out | {"lm_head.weight": output_head(self.taught())}


_CLIP = (qwen2_5_vl.MEAN, qwen2_5_vl.STD)
QWEN2_5 = Tiny("qwen2_5_vl", qwen2_5_vl, GOLDEN / "golden.json", 28, *_CLIP, head=GOLDEN / "head.json")
QWEN2 = Tiny("qwen2_vl", qwen2_vl, GOLDEN / "qwen2_vl.json", 28, *_CLIP)
QWEN3 = Tiny("qwen3_vl", qwen3_vl, GOLDEN / "qwen3_vl.json", 32, qwen3_vl.HALF, qwen3_vl.HALF, transformers="4.57")
FAMILIES = (QWEN2_5, QWEN2, QWEN3)


@dataclass(frozen=True)
class CheckpointInfo:
    """A written checkpoint: its folder, sha256 by file name, size in bytes, and name to serve it under."""

    folder: Path
    sha256: dict[str, str]
    size: int
    name: str


def files(tiny: Tiny = QWEN2_5) -> dict[str, bytes]:
    """Every file of the checkpoint: name to bytes."""
    ids = tokenizer.special_ids()
    generation = {
        "bos_token_id": ids["<|endoftext|>"],
        "do_sample": False,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
    }
    documents: dict[str, object] = {
        "config.json": tiny.made_by.config(),
        "generation_config.json": generation,
        "preprocessor_config.json": tiny.made_by.preprocessor(),
        "tokenizer.json": tokenizer.tokenizer_json(),
        "tokenizer_config.json": tokenizer.tokenizer_config(),
        "vocab.json": tokenizer.vocabulary(),
        "chat_template.json": {"chat_template": tokenizer.CHAT_TEMPLATE},
    }
    video: Callable[[], object] | None = getattr(tiny.made_by, "video_preprocessor", None)
    if video is not None:
        documents["video_preprocessor_config.json"] = video()
    texts = {name: json.dumps(content, indent=1, sort_keys=True) + "\n" for name, content in documents.items()}
    texts["merges.txt"] = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in tokenizer.merges())
    texts["chat_template.jinja"] = tokenizer.CHAT_TEMPLATE
    out = {name: text.encode() for name, text in texts.items()}
    out["model.safetensors"] = safetensors_bytes(tiny.tensors())
    return dict(sorted(out.items()))


def write_checkpoint(folder: Path, tiny: Tiny = QWEN2_5) -> CheckpointInfo:
    """Write the checkpoint to ``folder``, whole or not at all; an equal one that lies there is left as it is.

    Raises UsageError for a folder that holds files of another kind.
    """
    content = files(tiny)
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in content.items()}
    info = CheckpointInfo(folder, digests, sum(map(len, content.values())), tiny.name)
    if folder.is_dir() and _digests(folder) == digests:
        return info
    _refuse_others(folder, set(content))
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, body in content.items():
            (fresh / name).write_bytes(body)
        fresh.chmod(0o755)  # a container's user, who is not this one, reads it
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return info


def _refuse_others(folder: Path, own: set[str]) -> None:
    if not folder.exists():
        return
    present = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
    others = sorted(set(present) - own)
    if others:
        raise UsageError(
            f"{folder} is not an earlier tiny checkpoint: it holds {', '.join(others[:5])}",
            do="name a folder that does not exist yet, or an empty one",
        )


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}
