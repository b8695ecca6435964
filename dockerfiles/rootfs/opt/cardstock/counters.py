"""What the server on transformers tells Prometheus: counters and gauges in the text format. Standard library only.

Names are those of vLLM's metrics with ``cardstock_`` before them, where vLLM has the like.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Counters:
    """Counts since the start. ``ended`` by the reason why an answer ended, ``refused`` by HTTP status."""

    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    prompt_tokens: int = 0
    generation_tokens: int = 0
    seconds: float = 0.0

    def end(self, reason: str, prompt: int, generated: int, seconds: float) -> None:
        """Count an answer: its tokens, and the time from being asked to its end."""
        self.ended[reason] += 1
        self.prompt_tokens += prompt
        self.generation_tokens += generated
        self.seconds += seconds

    def text(self, running: int, waiting: int) -> str:
        """All of it as a page for Prometheus; ``running`` and ``waiting`` requests as of now."""
        ended = [(f"{{finished_reason={json.dumps(reason)}}}", count) for reason, count in sorted(self.ended.items())]
        refused = [(f'{{status="{status}"}}', count) for status, count in sorted(self.refused.items())]
        return "".join(
            (
                _family("requests_ended_total", "counter", "Answers ended, by reason.", ended),
                _family("requests_refused_total", "counter", "Requests refused, by HTTP status.", refused),
                _family("prompt_tokens_total", "counter", "Tokens of prompts.", [("", self.prompt_tokens)]),
                _family("generation_tokens_total", "counter", "Tokens generated.", [("", self.generation_tokens)]),
                _family("request_seconds_total", "counter", "Seconds of all answers.", [("", round(self.seconds, 3))]),
                _family("num_requests_running", "gauge", "Answers being generated.", [("", running)]),
                _family("num_requests_waiting", "gauge", "Requests waiting for their turn.", [("", waiting)]),
            )
        )


def _family(name: str, kind: str, told: str, rows: Sequence[tuple[str, float]]) -> str:
    head = f"# HELP cardstock_{name} {told}\n# TYPE cardstock_{name} {kind}\n"
    return head + "".join(f"cardstock_{name}{labels} {value}\n" for labels, value in rows)
