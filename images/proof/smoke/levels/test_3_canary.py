"""Level 3, canary: tiny models give the golden logits in this image, on the CPU and on a card if any."""

from __future__ import annotations

import json
from typing import Any

import pytest

from images.proof.smoke import COUNT_CALLS, PROOF, ProofContainers, calls_in
from images.proof.smoke.levels.conftest import require_no_call
from images.proof.tiny_model import QWEN2_5, Tiny

CANARY = "/opt/cardstock/canary.py"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_canary(
    device: str,
    containers: ProofContainers,
    volume: str,
    others: tuple[Tiny, ...],
    card: str | None,
    facts: dict[str, Any],
) -> None:
    """Logits, greedy tokens and tokenizer as golden: Qwen2.5-VL with both of transformers' attentions, the other
    families that it knows with one."""
    if device == "cuda" and card is None:
        pytest.skip("no card")
    argv = ["python", CANARY, "--model", f"{PROOF}/tiny", "--golden", f"{PROOF}/golden.json"]
    for tiny in others:
        argv += ["--also", f"{PROOF}/{tiny.family}", f"{PROOF}/{tiny.golden.name}"]
    with containers.sleeping(volume, gpus=device == "cuda") as container:
        words = [*argv, "--attention", "sdpa,eager", "--device", device, "--json"]
        finished = container.run(words, {**OFFLINE, **COUNT_CALLS})
        called = calls_in(container, finished.out + finished.err)
    require_no_call(called, facts)
    try:
        result = json.loads(finished.out.splitlines()[-1])
        failed = [f"{check['name']}: {check['detail']}" for check in result["checks"] if not check["ok"]]
        errors = [check["measured"]["relative"] for check in result["checks"] if "relative" in check["measured"]]
    except (ValueError, KeyError, IndexError):
        pytest.fail(f"the canary gave no result on {device}, exit code {finished.code}: {finished.tail}", pytrace=False)
    facts["device"] = "cpu" if device == "cpu" else f"cpu, {card}"
    facts["families"] = [QWEN2_5.family, *(tiny.family for tiny in others)]
    facts[device] = {
        "checks": len(result["checks"]),
        "greatest relative error": max(errors, default=None),
        "seconds": result["seconds"],
        "versions": result["versions"],
    }
    if failed or finished.code:
        count = f"{len(failed)} of {len(result['checks'])} checks failed on {device}"
        pytest.fail(f"{count}: " + "\n".join(failed or [finished.tail]), pytrace=False)
