"""What fit knows of a flag that a user sets: a warning with the number, where the server will not start by it. Pure.

The flag wins all the same: it was said, and fit's sums of what is needed while computing are estimates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from images.core import UsageError, human_bytes
from images.run.fit import Fit, with_load

_DTYPES = {"half": "float16", "float16": "float16", "bfloat16": "bfloat16", "float": "float32", "float32": "float32"}


_VISIBLE = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")


def check_count(count: int, environment: Mapping[str, str], where: str) -> None:
    """Raises UsageError where a variable shows the server another number of cards than it is given and split for."""
    for name in _VISIBLE:
        value = environment.get(name, "").strip()
        shown = [word for word in value.split(",") if word.strip()]
        if shown and value.lower() not in ("all", "none", "void") and len(shown) != count:
            raise UsageError(
                f"{name}={value} shows {len(shown)} of the {count} cards that are summed up",
                cause="the model is cut for all of them",
                do=f"leave {name} out, and name the cards: --gpus device={value}",
                where=where,
            )


def judge_flags(found: Fit, words: Sequence[str]) -> list[str]:
    """One sentence for each flag of ``words`` that fit expects to fail; they are as `read_flags` gives them."""
    said = _values(words)
    found_by = [_length(found, said), _memory(found, said), _quantization(found, said), _split(found, said)]
    return [sentence for part in found_by for sentence in part]


def _values(words: Sequence[str]) -> dict[str, str]:
    """The last value of each flag; "" of one without."""
    out: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            name = {"-tp": "--tensor-parallel-size"}.get(name, name.replace("_", "-"))
            out[name] = value
        elif name and not out[name]:
            out[name] = word
    return out


def _number(text: str | None) -> int | None:
    """A whole number, with vLLM's k and m: "32k" is 32000, "32K" 32768 (vllm/utils human_readable_int)."""
    if not text:
        return None
    unit = {"k": 1000, "K": 1024, "m": 10**6, "M": 2**20}.get(text[-1], 0)
    body = text[:-1] if unit else text
    return int(body) * (unit or 1) if body.isascii() and body.isdecimal() and len(body) < 10 else None


def _length(found: Fit, said: dict[str, str]) -> Iterator[str]:
    length = _number(said.get("--max-model-len"))
    if length is None:
        return
    most = found.ask.model.shape.positions
    if length > most:
        yield f"--max-model-len {length}: the model knows {most} positions, and the server refuses more"
    if not found.backend.vllm:
        return
    tokens = found.sum.tokens * (2 if said.get("--kv-cache-dtype", "").startswith("fp8") else 1)
    if length > tokens:
        yield f"--max-model-len {length}: the cache holds {tokens} tokens by fit's sum; vLLM does not start with less"
    batched = _number(said.get("--max-num-batched-tokens"))
    if batched is None and not found.backend.chunked and length > found.load.length:
        yield (
            f"--max-model-len {length}: V0 computes a prompt at once, and --max-num-batched-tokens stays "
            f"{found.load.length}; give both"
        )


def _memory(found: Fit, said: dict[str, str]) -> Iterator[str]:
    """Flags that take memory: the sum is made again with them."""
    changes: dict[str, Any] = {}
    names = []
    for flag, key in (("--max-num-seqs", "seqs"), ("--max-num-batched-tokens", "batched")):
        value = _number(said.get(flag))
        if value is not None and value > getattr(found.load, key) and found.backend.vllm:
            changes[key] = value
            names.append(f"{flag} {value}")
    images = _images(said.get("--limit-mm-per-prompt", ""))
    if images is not None and images > found.load.images:
        changes["images"] = images
        names.append(f"{images} pictures in one request")
    if changes and (lacking := with_load(found, replace(found.load, **changes)).missing):
        yield f"{', '.join(names)}: by fit's sum a card lacks {human_bytes(lacking)} then"
    try:
        part = float(said.get("--gpu-memory-utilization", "0"))
    except ValueError:
        return
    if part > found.sum.utilisation + 0.005:
        yield (
            f"--gpu-memory-utilization {part:g}: fit leaves {1 - found.sum.utilisation:.2f} of the card to the CUDA "
            f"context, graphs and spare, so {found.sum.utilisation:.2f} is the most"
        )


def _images(text: str) -> int | None:
    """Pictures of "image=4,video=0" or of the same as JSON."""
    try:
        data = (
            json.loads(text) if text.startswith("{") else dict(part.split("=", 1) for part in text.split(",") if part)
        )
        return int(data["image"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _quantization(found: Fit, said: dict[str, str]) -> Iterator[str]:
    model, arch = found.ask.model, found.ask.arch
    dtype = _DTYPES.get(said.get("--dtype", ""), found.backend.dtype)
    kernel = said.get("--quantization") or said.get("-q") or found.backend.kernel
    if "--quantization" in said and model.form == "16-bit" and kernel in ("awq", "gptq", "awq_marlin", "gptq_marlin"):
        yield f"--quantization {kernel}: the weights of {model.name} have 16 bits each; the server looks for {kernel}'s"
    elif "--quantization" in said and model.form != "16-bit" and model.form not in kernel and kernel != model.method:
        yield f"--quantization {kernel}: the weights of {model.name} are in {model.form}"
    if kernel in ("awq", "gptq") and dtype != "float16":
        yield (
            f"--quantization {kernel} with {dtype}: the plain {kernel} kernel computes in float16 only; add "
            "--flag '--dtype half', or leave --quantization out"
        )
    if dtype == "bfloat16" and (arch.major, arch.minor) < (8, 0):
        yield f"--dtype bfloat16: it needs compute capability 8.0, and the oldest card has {arch.capability}"
    if "marlin" in kernel and "marlin" not in found.backend.kernel:
        why = f"on {arch.capability} in vLLM {found.backend.version}"
        yield f"--quantization {kernel}: fit finds that Marlin does not run {why} for {model.name}"


def _split(found: Fit, said: dict[str, str]) -> Iterator[str]:
    tensor = _number(said.get("--tensor-parallel-size")) or found.split.tp
    stages = _number(said.get("--pipeline-parallel-size")) or found.split.pp
    there = found.ask.count * found.ask.nodes
    if tensor * stages != found.split.tp * found.split.pp:
        yield (
            f"tensor x pipeline parallel size {tensor} x {stages} is {tensor * stages} cards, and the container has "
            f"{there}: say it with --tp, --pp and --gpus, so that all of it is summed up"
        )
