"""On a host with one card: does a flash-attn wheel compute attention right at Qwen2.5-VL's shapes?

    python -m images.proof.on_card.packages.attention_numbers --wheel FILE --card 9.0 --out records/cards/NAME.json

Needs torch (CUDA) in this Python. The wheel is unpacked into a temporary folder, audited, imported from there and held
against attention computed in float32 from the same half-precision inputs. Exit code 0 when every expectation held.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from images.core import process
from images.device_code.audit import Audit, audit, name_of, parse_capability
from images.device_code.sources import read_wheel

# (query heads, key and value heads) of the decoders: config.json of Qwen2.5-VL 3B, 7B, 32B, 72B. Head dimension 128.
DECODERS = {"3b": (16, 2), "7b": (28, 4), "32b": (40, 8), "72b": (64, 8)}
# The vision tower of all four: 16 heads of 80 (1280 wide); a window is 8 x 8 patches (112 pixels of 14).
VISION_HEADS, VISION_DIM, WINDOW = 16, 80, 64
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SEED = 20251121


@dataclass(frozen=True)
class Case:
    """One comparison: ``run`` gives what the wheel computes, ``reference`` plain attention in the dtype asked for."""

    name: str
    run: Callable[[], Tensor]
    reference: Callable[[torch.dtype], Tensor]
    dtype: torch.dtype


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Attention in the dtype of its inputs, spelled out. Shapes [tokens, heads, dim]; a causal end is aligned right."""
    k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for one in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    if causal:
        above = torch.ones(q.shape[0], k.shape[0], dtype=torch.bool, device=q.device)
        scores = scores.masked_fill(above.triu(k.shape[0] - q.shape[0] + 1), float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def pieces(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], *, causal: bool) -> Tensor:
    """The same over packed sequences of these lengths."""
    parts = [part.split(lengths) for part in (q, k, v)]
    return torch.cat([attend(*one, causal=causal) for one in zip(*parts, strict=True)])


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Normal random numbers, the same at every run."""
    generator = torch.Generator("cuda").manual_seed(SEED + seed)
    return torch.randn(shape, generator=generator, device="cuda", dtype=torch.float32).to(dtype)


def packed(
    flash: Any, name: str, heads: tuple[int, int], dim: int, lengths: list[int], dtype: torch.dtype, *, causal: bool
) -> Case:
    """A case over packed sequences, as both engines ask for prefill and for vision windows."""
    total = sum(lengths)
    q, k, v = (numbers((total, h, dim), dtype, i) for i, h in enumerate((heads[0], heads[1], heads[1])))
    starts = torch.tensor([0, *lengths], device="cuda", dtype=torch.int32).cumsum(0, dtype=torch.int32)

    def run() -> Tensor:
        out: Tensor = flash.flash_attn_varlen_func(
            q, k, v, starts, starts, max(lengths), max(lengths), causal=causal, dropout_p=0.0
        )
        return out

    return Case(name, run, lambda to: pieces(q.to(to), k.to(to), v.to(to), lengths, causal=causal), dtype)


def decode(flash: Any, name: str, heads: tuple[int, int], context: int, dtype: torch.dtype) -> Case:
    """One new token against a cache of ``context`` tokens."""
    q = numbers((1, heads[0], 128), dtype, 0)
    k, v = (numbers((context, heads[1], 128), dtype, i) for i in (1, 2))

    def run() -> Tensor:
        length = torch.tensor([context], device="cuda", dtype=torch.int32)
        out: Tensor = flash.flash_attn_with_kvcache(q[None], k[None], v[None], cache_seqlens=length, causal=True)[0]
        return out

    return Case(name, run, lambda to: attend(q.to(to), k.to(to), v.to(to), causal=True), dtype)


def cases(flash: Any) -> Iterator[Case]:
    """Every shape in both dtypes."""
    for word, dtype in DTYPES.items():
        for model, heads in DECODERS.items():
            yield packed(flash, f"decoder {model} prefill {word}", heads, 128, [1500, 37, 512], dtype, causal=True)
            yield decode(flash, f"decoder {model} decode {word}", heads, 2049, dtype)
        vision = (VISION_HEADS, VISION_HEADS)
        # A picture of 1000 x 1000 pixels: 72 x 72 patches, whole windows; then edges, whose windows are smaller.
        windows = [WINDOW] * 81
        yield packed(flash, f"vision windows {word}", vision, VISION_DIM, windows, dtype, causal=False)
        yield packed(flash, f"vision edges {word}", vision, VISION_DIM, [64, 32, 16, 8, 4, 64], dtype, causal=False)
        yield packed(flash, f"vision whole {word}", vision, VISION_DIM, [5184, 1024], dtype, causal=False)


def compare(case: Case) -> dict[str, Any]:
    """Largest absolute error against float32, and the most that is allowed.

    Allowed is twice the error that plain attention makes in the same dtype, and one rounding step of the dtype at 1:
    the bound that flash-attn's own tests use.
    """
    exact = case.reference(torch.float32)
    plain = case.reference(case.dtype).float()
    got = case.run().float()
    error, usual = ((one - exact).abs().max().item() for one in (got, plain))
    allowed = 2 * usual + torch.finfo(case.dtype).eps
    return {
        "error": error,
        "allowed": allowed,
        "plain": usual,
        "finite": bool(got.isfinite().all()),
        "held": bool(got.isfinite().all()) and error <= allowed,
    }


def mistaken(flash: Any) -> dict[str, bool]:
    """Wrong answers that the comparison must not let through: a missing mask, windows run together."""
    detected = {}
    causal = packed(flash, "", DECODERS["3b"], 128, [512], torch.float16, causal=True)
    open_ended = packed(flash, "", DECODERS["3b"], 128, [512], torch.float16, causal=False)
    detected["no causal mask"] = compare(Case("", open_ended.run, causal.reference, torch.float16))["held"]
    vision = (VISION_HEADS, VISION_HEADS)
    windows = packed(flash, "", vision, VISION_DIM, [WINDOW] * 4, torch.float16, causal=False)
    together = packed(flash, "", vision, VISION_DIM, [WINDOW * 4], torch.float16, causal=False)
    detected["windows run together"] = compare(Case("", together.run, windows.reference, torch.float16))["held"]
    return detected


def main() -> int:
    """Run all, write the record, print what held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--card", required=True, help="this host's card, such as 9.0")
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attention-numbers-") as name:
        site = Path(name)
        with zipfile.ZipFile(words.wheel) as wheel:
            wheel.extractall(site)
        sys.path.insert(0, name)
        flash = importlib.import_module("flash_attn")
        results = {case.name: compare(case) for case in cases(flash)}
        wrong = mistaken(flash)
        version = str(flash.__version__)
    code = audit(words.wheel.name, read_wheel(words.wheel))
    held = {name: one["held"] for name, one in results.items()}
    held |= {f"noticed: {name}": not passed for name, passed in wrong.items()}
    held["code for this card only"] = only(code, words.card)
    record = {
        "wheel": words.wheel.name,
        "size": words.wheel.stat().st_size,
        "flash_attn": version,
        "card": words.card,
        "gpu": gpu(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "archs": {one.name: one.archs for one in code.libraries},
        "kernel": made(words.wheel),
        "cases": results,
        "held": held,
    }
    words.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for expectation, ok in held.items():
        print(f"{'held' if ok else 'NOT HELD'}: {expectation}")
    return 0 if all(held.values()) else 1


def made(wheel: Path) -> Any:
    """How the wheel was compiled, where its record lies beside it."""
    file = wheel.parent / "kernel.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def only(code: Audit, card: str) -> bool:
    """Whether there is device code and all of it is for ``card``."""
    return {arch for one in code.libraries for arch in one.archs} == {name_of(parse_capability(card))}


def gpu() -> str:
    """The card and driver by name."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return process.run(command, check=False).out.strip()


if __name__ == "__main__":
    sys.exit(main())
