"""torch and transformers inside an image: a small Qwen2.5-VL's logits and tokens to the bit, and what is installed.

    python -m images.proof.lighter.with_transformers --out FILE [--device cpu]

The model is that of on_card/packages/slim_worker.py, with fixed random weights; every convolution, product and softmax
of the real one is in it. Nothing of vLLM is needed, so that older stacks can be compared too.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from images.proof.on_card.packages import make_inputs, make_model

NEW_TOKENS, SEED = 32, 20261128


def listed(site: Path) -> dict[str, int]:
    """Shared objects of NVIDIA's packages and of torch -> bytes, by their path below ``site``."""
    places = [*site.glob("nvidia/**/lib/*.so*"), *site.glob("torch/lib/*.so*"), *site.glob("cusparselt/lib/*.so*")]
    return {str(path.relative_to(site)): path.stat().st_size for path in sorted(places) if path.is_file()}


def loaded(site: Path, maps: Path = Path("/proc/self/maps")) -> list[str]:
    """Those below ``site`` that this process has loaded."""
    lines = maps.read_text(errors="replace").splitlines()
    places = {Path(line.split(maxsplit=5)[-1]) for line in lines if ".so" in line}
    return sorted(str(path.relative_to(site)) for path in places if path.is_relative_to(site))


def digest(tensor: Any) -> str:
    """sha256 of the numbers as float32, which holds float16 and bfloat16 to the bit."""
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def taken(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Of the inputs what this version's model takes."""
    known = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in known}


def case(attention: str, name: str, device: str) -> dict[str, Any]:
    """Logits of a prompt with a picture, greedy and sampled tokens with the logits that they were chosen by."""
    dtype = getattr(torch, name)
    model = make_model(attention, dtype, device)
    inputs = taken(model, make_inputs(dtype, device))
    at = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False).logits
        out: dict[str, Any] = {"logits": digest(logits), "finite": bool(logits.isfinite().all())}
        first = logits[0, -1].float().tolist()
        for mode, words in (("greedy", {"do_sample": False}), ("sampled", {"do_sample": True, "top_k": 40})):
            torch.manual_seed(SEED)
            said = model.generate(
                **inputs, **words, max_new_tokens=NEW_TOKENS, return_dict_in_generate=True, output_logits=True
            )
            out[mode] = {"tokens": said.sequences[0, at:].tolist(), "logits": digest(torch.cat(said.logits))}
    return {**out, "last place": first}


def leave_cudnn(site: Path) -> None:
    """Do without cuDNN where it is a stand-in, as the server does there: torch has convolutions of its own."""
    if not list(site.glob("nvidia/cudnn/lib/libcudnn_*")):
        torch.backends.cudnn.enabled = False
        torch.backends.cuda.enable_cudnn_sdp(False)


def measure(device: str) -> dict[str, Any]:
    """Everything, as JSON values."""
    begun = time.monotonic()
    leave_cudnn(Path(torch.__file__).parents[1])
    cases = {f"{a} {d}": case(a, d, device) for a in ("sdpa", "eager") for d in ("float16", "bfloat16")}
    site = Path(torch.__file__).parents[1]
    on_card = device == "cuda"
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    card = torch.cuda.get_device_properties(0) if on_card else None
    return {
        "versions": {**versions, "transformers": transformers.__version__},
        "cuda": torch.version.cuda,
        "card": card and {"name": card.name, "capability": f"{card.major}.{card.minor}", "memory": card.total_memory},
        "cases": cases,
        "reserved": torch.cuda.max_memory_reserved() if on_card else 0,
        "libraries": listed(site),
        "loaded": loaded(site),
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    words = parser.parse_args()
    words.out.write_text(json.dumps(measure(words.device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
