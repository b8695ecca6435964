"""The sums of fit against what a card really allocated (images/proof/memory/with_transformers.py wrote the record)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from images.run.fit.activations import Load, text_peak, vision_peak
from images.run.fit.backends import CardBackend, backend_for
from images.run.fit.memory import CONTEXT, SPARE
from images.run.fit.parallel import Split
from images.run.fit.usable_memory import usable
from images.run.fit.weights import kv_bytes, stage_weights, vision_weights
from tests.helpers.fits import ask, model

RECORD: dict[str, Any] = json.loads(
    (Path(__file__).parents[4] / "records" / "cards" / "h200-fit-memory.json").read_text(encoding="utf-8")
)
MODEL = model("7b")
# nvidia-smi on that machine: "NVIDIA H200, 143771 MiB".
NVML_TOTAL = 143771 * 2**20
# An estimate may be this much above what was allocated, and never below.
ABOVE = 1.15


def _engine() -> CardBackend:
    one = ask("7b", "H200", by="cu130-transformers5.24.0-sdpa-sm90")
    return backend_for(one.model, one.variant, one.arch)


def test_weights_are_those_of_the_real_model() -> None:
    assert stage_weights(MODEL, (28,), 0, 1) + vision_weights(MODEL, 1) == RECORD["weights"]
    assert RECORD["parameters"] * 2 == RECORD["weights"]


def test_a_program_can_have_what_fit_says() -> None:
    assert usable(NVML_TOTAL) <= RECORD["total"] < NVML_TOTAL
    assert RECORD["outside_torch"] <= CONTEXT + SPARE
    assert RECORD["total"] - RECORD["free_at_start"] <= CONTEXT + SPARE


@pytest.mark.parametrize("tokens", [1280, 4096, 16384])
def test_the_vision_tower_needs_at_most_what_fit_says(tokens: int) -> None:
    highest, _ = RECORD["vision"][str(tokens)]
    said = vision_peak(MODEL, _engine(), Split(1, 1), tokens) + tokens * 3584 * 2
    assert highest <= said <= ABOVE * highest


@pytest.mark.parametrize("length", [2048, 8192, 16384])
def test_a_prompt_needs_at_most_what_fit_says(length: int) -> None:
    highest, kept = RECORD["text"][str(length)]
    cache = kv_bytes(MODEL, 28, 1) * length
    said = text_peak(MODEL, _engine(), 1, Load(length), last=True)
    assert highest - cache <= said <= ABOVE * (highest - cache)
    # What stays is the cache and little else.
    assert cache <= kept <= ABOVE * cache
