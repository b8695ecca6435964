"""The tiny model in numpy gives the golden logits that torch gave."""

from __future__ import annotations

import json
import sys

import numpy as np

from images.proof.tiny_model.checkpoint import QWEN2_5
from images.proof.tiny_model.reference import text_logits
from tests.helpers.matrices import ROOT

sys.path.insert(0, str(ROOT / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import canary  # type: ignore[import-not-found,unused-ignore]


def test_numpys_logits_are_torchs() -> None:
    cases = json.loads(QWEN2_5.golden.read_text(encoding="utf-8"))["cases"]
    (case,) = [case for case in cases if not case["pictures"]]
    logits = text_logits(case["input_ids"] + case["tokens"][:-1])[len(case["input_ids"]) - 1 :]
    golden = canary.decode_logits(case)
    assert np.abs(logits - golden).max() / np.abs(golden).max() < 1e-5
    assert logits.argmax(axis=1).tolist() == case["tokens"]
    # what float32 rounds is seen: torch's are not float64's, rounded
    assert (golden == logits.astype(np.float32)).mean() < 0.2
