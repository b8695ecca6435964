"""Calls on purpose what an image may have a stand-in for, on a card, and tells what became of it.

    python -m images.proof.on_card.stand_in_calls --out FILE

Written as JSON: name -> {"said": "computed" or the error, "right": whether it is the processor's result}. A call that a
stand-in answers raises; with the library itself it computes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def calls() -> dict[str, Callable[[str], Tensor]]:
    """Name -> a function of the device that gives a result."""
    made = torch.Generator().manual_seed(3)
    square = torch.randn(96, 96, generator=made)
    positive = square @ square.T + 96 * torch.eye(96)
    return {
        "torch.fft": lambda device: torch.fft.fft(square.to(device)).abs(),
        "torch.linalg": lambda device: torch.linalg.svdvals(positive.to(device)),
        "torch.sparse": lambda device: positive.relu().to(device).to_sparse_csr() @ square.to(device),
    }


def attempt(call: Callable[[str], Tensor], device: str) -> dict[str, Any]:
    """What became of one call."""
    expected = call("cpu")
    try:
        result = call(device).cpu()
    except RuntimeError as error:  # torch's form of every library's status
        return {"said": str(error)[:400], "right": False}
    return {"said": "computed", "right": bool(torch.allclose(result, expected, rtol=1e-3, atol=1e-2))}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    words = parser.parse_args()
    told = {name: attempt(call, words.device) for name, call in calls().items()}
    words.out.write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
