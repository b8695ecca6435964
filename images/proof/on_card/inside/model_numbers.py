"""One process on a card: logits and speed of the transformers engine, by attention and dtype, as JSON.

    python -m images.proof.on_card.inside.model_numbers WHAT FOLDER --out FILE

    logits                                   against float32 of the same weights
    speed [--attention sdpa] [--unpacked]
    planted                                  NaN in the weights: do the checks notice?

FOLDER is a checkpoint of 3B's shape (shaped/checkpoint.py). Started by prove.py; flash-attn is tried where it can be
imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from images.proof.on_card.runs import ROOTFS
from images.proof.on_card.shaped import CASES, answer, prompt_inputs
from images.proof.smoke import why_degenerate

sys.path.insert(0, str(ROOTFS))
# Greatest relative error ||a - b|| / ||b|| of logits against float32. Weights are exact in every dtype (AWQ), so it is
# the activations' rounding over 36 layers: of 11 bits in float16, of 8 in bfloat16.
TOLERANCE = {"float16": 0.01, "bfloat16": 0.06}
# An attention may be this much worse than transformers' plain one in the same dtype: flash-attn's own tests' bound.
AGAINST_PLAIN = 2.0
NEW_TOKENS, REPEATS = 33, 5


def load(folder: Path, dtype: str, attention: str, *, unpacked: bool = False) -> Any:
    """The server's own engine on the first card, without TF32."""
    from generate import Transformers  # type: ignore[import-not-found,unused-ignore]

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return Transformers(folder, dtype=dtype, attention=attention, dequantised=unpacked)


def logits(engine: Any) -> dict[str, Tensor]:
    """Case -> float32 logits [answer tokens, vocabulary] at the places where the answer is said."""
    out = {}
    for name in CASES:
        wanted = answer(name)
        with torch.inference_mode():
            output = engine.model(
                **prompt_inputs(engine, name, wanted[:-1]), use_cache=False, logits_to_keep=len(wanted)
            )
        out[name] = output.logits[0, -len(wanted) :].float()
    return out


def attentions() -> list[str]:
    """What can be tried here."""
    return ["eager", "sdpa", *(["flash_attention_2"] if importlib.util.find_spec("flash_attn") else [])]


def judge(computed: Tensor, exact: Tensor, wanted: list[int]) -> dict[str, Any]:
    """One case's error, whether its tokens are the taught ones, and by how much the right ones lead."""
    best = computed.topk(2, dim=-1)
    return {
        "error": float((computed - exact).norm() / exact.norm()),
        "largest error": float((computed - exact).abs().max()),
        "finite": bool(computed.isfinite().all()),
        "tokens": best.indices[:, 0].tolist() == wanted,
        "smallest lead": float((best.values[:, 0] - best.values[:, 1]).min()),
    }


def compare_logits(folder: Path) -> dict[str, Any]:
    """Every attention and dtype against float32 with plain attention; ``held`` says what was within tolerance."""
    exact = logits(load(folder, "float32", "eager"))
    for name, table in exact.items():
        np.save(folder.parent / f"reference-{name}.npy", table.cpu().numpy())
    reference = {name: judge(exact[name], exact[name], answer(name)) for name in CASES}
    results: dict[str, Any] = {}
    for dtype, tolerance in TOLERANCE.items():
        for attention in attentions():
            computed = logits(load(folder, dtype, attention))
            cases = {name: judge(computed[name], exact[name], answer(name)) for name in CASES}
            error = max(one["error"] for one in cases.values())
            plain = results[f"eager {dtype}"]["error"] if attention != "eager" else error
            allowed = min(tolerance, AGAINST_PLAIN * plain + torch.finfo(getattr(torch, dtype)).eps)
            good = all(one["finite"] and one["tokens"] for one in cases.values())
            results[f"{attention} {dtype}"] = {
                "error": error,
                "allowed": allowed,
                "held": good and error <= allowed,
                "cases": cases,
            }
            torch.cuda.empty_cache()
    right = all(one["tokens"] for one in reference.values())
    return {"reference": reference, "compared": results, "held": right and all(one["held"] for one in results.values())}


def planted(folder: Path) -> dict[str, Any]:
    """NaN in the vision tower, as an overflow leaves it: logits not finite, "!!!!" said, and both noticed."""
    engine = load(folder, "float16", "sdpa")
    exact = logits(engine)["picture-red"]
    healthy = why_degenerate(exact.argmax(-1).tolist())
    tower = next(part for name, part in engine.model.named_parameters() if name.endswith("visual.merger.mlp.2.bias"))
    with torch.no_grad():
        tower[0] = float("nan")
    broken = logits(engine)["picture-red"]
    inputs = prompt_inputs(engine, "picture-red", [])
    with torch.inference_mode():
        out = engine.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    said = out[0, inputs["input_ids"].shape[1] :].tolist()
    noticed = why_degenerate(said)
    judged = judge(broken, exact, answer("picture-red"))
    held = healthy is None and noticed is not None and not judged["finite"] and not judged["tokens"]
    return {"said": said, "noticed": noticed, "finite": judged["finite"], "healthy": healthy, "held": held}


def timed(action: Callable[[], Any]) -> float:
    """Seconds, the card's work included."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    action()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def speed(folder: Path, attention: str, dtype: str, *, unpacked: bool) -> list[dict[str, Any]]:
    """Figures for one picture of 1000 x 1000 a prompt, batch 1 and 16; the picture is prepared each time."""
    engine = load(folder, dtype, attention, unpacked=unpacked)
    of = {"engine": "transformers", "attention": attention, "dtype": dtype, "model": "3b", "picture": "1000x1000"}
    of["weights"] = "unpacked once" if unpacked else "unpacked at use"
    figures = []
    for batch in (1, 16):
        first, rest = [], []
        for repeat in range(REPEATS + 1):
            one = timed(lambda batch=batch: generate(engine, batch, 1))  # type: ignore[misc]
            all_of_it = timed(lambda batch=batch: generate(engine, batch, NEW_TOKENS))  # type: ignore[misc]
            if repeat:
                first.append(one)
                rest.append(max(all_of_it - one, 1e-9))
        length = prompt_inputs(engine, "picture-red", [])["input_ids"].shape[1]
        prefill = [batch * length / seconds for seconds in first]
        decode = [batch * (NEW_TOKENS - 1) / seconds for seconds in rest]
        for name, runs, unit in (
            ("first token", first, "s"),
            ("prefill", prefill, "tokens/s"),
            ("decode", decode, "tokens/s"),
        ):
            kind = {**of, "batch": str(batch), "prompt": str(length)}
            figures.append({"name": name, "value": statistics.median(runs), "unit": unit, "of": kind, "runs": runs})
    return figures


def generate(engine: Any, batch: int, tokens: int) -> Any:
    """Greedy tokens of ``batch`` equal prompts, exactly ``tokens`` each; from the PNG file on."""
    single = prompt_inputs(engine, "picture-red", [])
    inputs = {name: torch.cat([value] * batch) for name, value in single.items()}
    with torch.inference_mode():
        return engine.model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)


def main() -> int:
    """Command line; 0 unless it broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("logits", "speed", "planted"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--unpacked", action="store_true")
    words = parser.parse_args()
    result: Any
    if words.what == "logits":
        result = compare_logits(words.folder)
    elif words.what == "planted":
        result = planted(words.folder)
    else:
        result = speed(words.folder, words.attention, words.dtype, unpacked=words.unpacked)
    words.out.write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
