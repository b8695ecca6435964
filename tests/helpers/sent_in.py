"""Records of runs on cards as somebody would send them in: whole, sealed, and the same after somebody changed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from images.cards.data import all_cards
from images.cards.names import match_card
from images.core.python310 import UTC
from images.proof.on_card.records.reading import read_with_data
from images.proof.on_card.records.record import GpuRecord, Seal, Step
from images.proof.on_card.records.seal import POSITIONS, content_hash, pack_logits, question
from images.proof.on_card.records.sent_in import Finding, Known, check_record
from images.proof.on_card.shaped.answers import CASES, answer
from images.proof.smoke import server as smoke
from images.proof.tiny_model.reference import text_logits
from images.render.lock_files import read_lock
from tests.helpers.matrices import ROOT, variants

VARIANT = variants().valid["cu124-vllm0.8.5.post1-xformers-sm75"]
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
TODAY = "ab" * 32
MACHINE = {"name": "Tesla T4", "capability": "7.5", "driver": "535.104.05", "memory": 15360 * 2**20, "cards": 1}
VERSIONS = {"python": "3.11.2", "torch": "2.6.0", "vllm": "0.8.5.post1", "transformers": "4.51.3"}


def answer_like_torch(seed: str, device: str = "cuda") -> Seal:
    """A seal with the rounding of float32: some parts in ten million of the largest logit."""
    logits = text_logits(question(seed))[-POSITIONS:]
    noise = np.random.default_rng(7).normal(0, 2e-7, logits.shape) * np.abs(logits).max()
    return Seal(seed, "cpu" if device == "cpu" else "cuda", pack_logits(logits + noise))


def _steps() -> tuple[Step, ...]:
    goldens = smoke.read_golden(smoke.GOLDEN.read_text(encoding="utf-8"))
    said = {golden.name: golden.text for golden in goldens}
    distance = {golden.name: 0.02 for golden in goldens}
    taught = {name: {"tokens": answer(name)} for name in CASES}
    return (
        Step("machine", "passed", facts=MACHINE),
        Step("stack: image", "passed", "", 12.0, {"card": {"name": "Tesla T4", "capability": "7.5"}}),
        Step("canary on the card", "passed", "", 9.0, {"greatest relative error": 1.5e-6, "seconds": 8.0}),
        Step(
            "vllm: tiny image",
            "passed",
            "",
            60.0,
            {"said": said, "logprob distance": distance, "stages": {"weights": 17.0, "healthy": 58.0}},
        ),
        Step("vllm: 3b", "passed", "", 90.0, {"image": {"said": taught}}),
        Step("vllm: two cards", "not run", "one card is here"),
        Step("audit", "passed", "", 2.0, {"digest": "12" * 32}),
    )


def good_record() -> GpuRecord:
    """A whole one, of a T4, without its seal."""
    return GpuRecord(
        card="Tesla T4",
        capability="7.5",
        memory=15360 * 2**20,
        driver="535.104.05",
        created="2026-11-28T10:00:00+00:00",
        place="image",
        variant=VARIANT.id,
        input_hash=TODAY,
        versions=VERSIONS,
        steps=_steps(),
        image_digest=f"sha256:{'3' * 64}",
        image_id=f"sha256:{'4' * 64}",
        engine="Docker 29.1.0",
        given="cdi",
        ended="2026-11-28T10:05:00+00:00",
    )


def sealed(data: dict[str, Any], device: str = "cuda") -> dict[str, Any]:
    """The same with a seal of what it says, as its own program puts it on."""
    seal = answer_like_torch(content_hash(data), device)
    return {**data, "seal": {"seed": seal.seed, "device": seal.device, "logits": seal.logits}}


def known(**other: Any) -> Known:
    """What a T4's record is held against."""
    lock = read_lock(ROOT / "dockerfiles" / "locks", VARIANT.lock)
    assert lock
    told = {
        "now": NOW,
        "variant": VARIANT,
        "today": TODAY,
        "locked": lock.versions(),
        "card": match_card("Tesla T4", all_cards()).card,
    }
    return Known(**{**told, **other})


def checked(data: dict[str, Any], folder: Path, **other: Any) -> dict[str, Finding]:
    """The findings by what was looked at."""
    path = folder / "sent-in.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    record, read = read_with_data(path)
    return {one.what: one for one in check_record(record, read, known(**other))}


def changed(data: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """A copy that somebody has edited."""
    copy: dict[str, Any] = json.loads(json.dumps(data))
    change(copy)
    return copy
