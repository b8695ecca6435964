"""Prefill without a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from images.proof.on_card.inside.prefill import prefill
from images.proof.on_card.shaped.answers import noise_message


def test_prefill_counts_from_the_first_that_is_taken_to_the_last_first_token() -> None:
    asked: list[Any] = []

    class Engine:
        def chat(self, conversations: list[Any], params: object, *, use_tqdm: bool) -> list[SimpleNamespace]:
            asked.extend(conversations)
            spans = [(10.0, 10.5), (10.25, 11.0)]
            metrics = [SimpleNamespace(scheduled_ts=taken, first_token_ts=first) for taken, first in spans]
            return [SimpleNamespace(metrics=one, prompt_token_ids=[0] * 100) for one in metrics]

    assert prefill(Engine(), None, 2, 7) == (1.0, 200)
    first, second = asked
    assert first != second
    assert first == noise_message(7)
