"""Inside the image: do tiny models give the golden logits here? Runs on the CPU when there is no card.

    python canary.py --model DIR --golden FILE [--attention sdpa,eager] [--device cpu] [--also DIR FILE]... --json

``--also`` is a model of another family, tried in one way only: its weights unpacked, by the first attention. One JSON
object on stdout, exit code 0 (every check passed) or 1. Everything is float32 and the AWQ weights are
unpacked, so what is tested is that this image's torch and transformers compute the model, not rounding. Pixels are
cut into patches here, in numpy: image processors differ between versions, and the canary must not.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import inspect
import json
import platform
import sys
import time
import traceback
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-4
PATCH, MERGE, TEMPORAL = 14, 2, 2  # golden answers of another patch say so


@dataclass(frozen=True)
class Check:
    """One thing tested: its name, verdict, and what was measured or why it failed."""

    name: str
    ok: bool
    detail: str
    measured: dict[str, float] = field(default_factory=dict)


def decode_picture(record: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """RGB bytes [height, width, 3] of a golden picture."""
    raw = zlib.decompress(base64.b64decode(record["rgb_zlib"]))
    return np.frombuffer(raw, dtype=np.uint8).reshape(record["height"], record["width"], 3)


def patchify(
    rgb: np.ndarray[Any, Any], mean: list[float], std: list[float], patch: int = PATCH
) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Float32 patches [patches, 3 * 2 * patch * patch] and the grid [frames, rows, columns], in Qwen2-VL's order.

    Sides must be multiples of two patches; the picture is not resized.
    """
    height, width, _ = rgb.shape
    rows, columns = height // patch, width // patch
    scaled = (rgb.astype(np.float64) / 255.0 - np.array(mean)) / np.array(std)
    frames = np.repeat(scaled.astype(np.float32).transpose(2, 0, 1)[None], TEMPORAL, axis=0)
    cut = frames.reshape(1, TEMPORAL, 3, rows // MERGE, MERGE, patch, columns // MERGE, MERGE, patch)
    cut = cut.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return np.ascontiguousarray(cut.reshape(rows * columns, -1)), [1, rows, columns]


def decode_logits(case: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Golden logits [tokens, vocabulary], float32."""
    raw = zlib.decompress(base64.b64decode(case["logits"]))
    return np.frombuffer(raw, dtype="<f4").reshape(len(case["tokens"]), -1)


def model_inputs(
    model: Any, golden: dict[str, Any], case: dict[str, Any], more: list[int], device: str
) -> dict[str, Any]:
    """Keyword arguments for the model's forward or generate: the prompt of ``case`` followed by the ids ``more``."""
    import torch

    ids = torch.tensor([case["input_ids"] + more], device=device)
    out: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if case["pictures"]:
        rgbs = [decode_picture(golden["pictures"][name]) for name in case["pictures"]]
        cut = [patchify(rgb, golden["mean"], golden["std"], golden.get("patch", PATCH)) for rgb in rgbs]
        out["pixel_values"] = torch.from_numpy(np.concatenate([patches for patches, _ in cut])).to(device)
        out["image_grid_thw"] = torch.tensor([grid for _, grid in cut], device=device)
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:  # transformers 5 wants to be told
        out["mm_token_type_ids"] = (ids == golden["image_token_id"]).int()
    return out


def forward_logits(model: Any, golden: dict[str, Any], case: dict[str, Any], device: str) -> np.ndarray[Any, Any]:
    """Logits [tokens, vocabulary] at the places where the golden tokens are said, in one pass."""
    import torch

    with torch.inference_mode():
        inputs = model_inputs(model, golden, case, case["tokens"][:-1], device)
        logits = model(**inputs, use_cache=False).logits[0, len(case["input_ids"]) - 1 :]
    return logits.float().cpu().numpy()  # type: ignore[no-any-return]


def greedy_tokens(model: Any, golden: dict[str, Any], case: dict[str, Any], device: str) -> list[int]:
    """Ids that greedy generation says, up to and with the end token."""
    import torch

    with torch.inference_mode():
        inputs = model_inputs(model, golden, case, [], device)
        out = model.generate(**inputs, max_new_tokens=len(case["tokens"]), do_sample=False)
    return out[0, len(case["input_ids"]) :].tolist()  # type: ignore[no-any-return]


def compare(name: str, logits: np.ndarray[Any, Any], golden: np.ndarray[Any, Any]) -> Check:
    """Finite, and max |a - b| / max |b| within `TOLERANCE`."""
    if logits.shape != golden.shape:
        return Check(name, False, f"logits of shape {logits.shape}, golden {golden.shape}")
    if not np.isfinite(logits).all():
        return Check(name, False, f"{int((~np.isfinite(logits)).sum())} logits are not finite")
    error = float(np.abs(logits - golden).max() / np.abs(golden).max())
    return Check(name, error <= TOLERANCE, f"relative error {error:.1e}, allowed {TOLERANCE:.0e}", {"relative": error})


def degenerate(said: list[list[int]]) -> Check:
    """Not one token for ever, not only "!" (id 0), not the same answer to every prompt: what overflow looks like."""
    flat = [token for answer in said for token in answer]
    if not any(flat):
        return Check("degenerate", False, 'every token is id 0, "!"')
    if len(set(flat)) == 1 or len({tuple(answer) for answer in said}) == 1:
        return Check("degenerate", False, f"the same output for every prompt: {said[0]}")
    return Check("degenerate", True, f"{len(set(flat))} different tokens in {len(said)} answers")


def check_files(folder: Path, golden: dict[str, Any]) -> Check:
    """The checkpoint is the one the golden answers were made from."""
    bad = [
        name
        for name, digest in golden["sha256"].items()
        if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest
    ]
    return Check("checkpoint", not bad, f"differ from golden: {', '.join(bad)}" if bad else "files as golden")


def check_tokens(folder: Path, golden: dict[str, Any]) -> Check:
    """The image's tokenizer and chat template turn the messages into the golden ids (picture marks expanded)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    for case in golden["cases"]:
        text = tokenizer.apply_chat_template(case["messages"], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if expand(ids, golden, case) != case["input_ids"]:
            return Check("tokenizer", False, f"case {case['name']}: {ids}")
        if tokenizer.decode(case["tokens"], skip_special_tokens=True) != case["text"]:
            return Check("tokenizer", False, f"case {case['name']} decodes to {tokenizer.decode(case['tokens'])!r}")
    return Check("tokenizer", True, f"{len(golden['cases'])} prompts as golden")


def expand(ids: list[int], golden: dict[str, Any], case: dict[str, Any]) -> list[int]:
    """One picture mark in ``ids`` becomes as many as the picture has merged patches."""
    sizes = [golden["pictures"][name] for name in case["pictures"]]
    side = golden.get("patch", PATCH) * MERGE
    counts = iter([(size["height"] // side) * (size["width"] // side) for size in sizes])
    out: list[int] = []
    for token in ids:
        out += [token] * (next(counts, 1) if token == golden["image_token_id"] else 1)
    return out


def run(folder: Path, golden: dict[str, Any], attentions: list[str], device: str, packed: bool = True) -> list[Check]:
    """Every check; a broken one is a failed check with the end of its traceback. ``packed``: AWQ's at use, too."""
    checks = [check_files(folder, golden)]
    if not checks[0].ok:
        return checks
    plans: list[tuple[str, bool]] = [(attention, True) for attention in attentions]
    plans += [(attentions[0], False)] if packed else []
    for step in [None, *plans]:
        try:
            checks += [check_tokens(folder, golden)] if step is None else check_model(folder, golden, *step, device)
        except Exception:
            label = "tokenizer" if step is None else step[0]
            checks.append(Check(label, False, "".join(traceback.format_exc().splitlines(keepends=True)[-6:])))
    return checks


def check_model(folder: Path, golden: dict[str, Any], attention: str, dequantised: bool, device: str) -> list[Check]:
    """Logits of every case, greedy answers, and their health, for one attention and one way to hold the weights."""
    import torch
    from awq_loader import load_model  # type: ignore[import-not-found,unused-ignore]

    torch.backends.cuda.matmul.allow_tf32 = False  # on a card, convolutions round to 10 bits unless told not to
    torch.backends.cudnn.allow_tf32 = False
    label = f"{attention}, {'unpacked once' if dequantised else 'unpacked at use'}"
    model = load_model(folder, dtype=torch.float32, attention=attention, devices=[device], dequantised=dequantised)
    checks, said = [], []
    for case in golden["cases"]:
        logits = forward_logits(model, golden, case, device)
        checks.append(compare(f"logits: {case['name']} ({label})", logits, decode_logits(case)))
        tokens = greedy_tokens(model, golden, case, device)
        said.append(tokens)
        same = tokens == case["tokens"]
        checks.append(Check(f"greedy: {case['name']} ({label})", same, f"{tokens}, golden {case['tokens']}"))
    return [*checks, degenerate(said)]


def versions() -> dict[str, str]:
    """What ran: Python, numpy, torch, transformers."""
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 when every check passed, 1 when one failed."""
    parser = argparse.ArgumentParser(description="Compare this image's models with golden logits.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--golden", type=Path, required=True)
    parser.add_argument("--attention", default="sdpa,eager", help="comma-separated implementations to try")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--also", nargs=2, action="append", default=[], metavar=("DIR", "FILE"))
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    args = parser.parse_args(arguments)
    start = time.monotonic()
    attentions = args.attention.split(",")
    checks = run(args.model, json.loads(args.golden.read_text()), attentions, args.device)
    for folder, golden in args.also:
        found = run(Path(folder), json.loads(Path(golden).read_text()), attentions[:1], args.device, packed=False)
        checks += [replace(check, name=f"{Path(folder).name}: {check.name}") for check in found]
    ok = all(check.ok for check in checks)
    if args.json:
        record = {"ok": ok, "device": args.device, "seconds": round(time.monotonic() - start, 1)}
        print(json.dumps({**record, "versions": versions(), "checks": [asdict(check) for check in checks]}))
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
