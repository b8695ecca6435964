"""A server under test: what its log tells of its start, and tokens by the time that they came."""

from __future__ import annotations

import pytest

from images.proof.on_card.backends import start_figures
from images.proof.on_card.runs.server import StartedServer, Streamed

LOG = [
    (14.6, "(APIServer pid=1) INFO 11-21 16:23:49 [api_utils.py:273] non-default args: {'port': 8100}"),
    (
        30.1,
        "(EngineCore pid=2) INFO 11-21 16:24:04 [core.py:114] Initializing a V1 LLM engine (v0.25.1) with config: x",
    ),
    (32.5, "(EngineCore pid=2) INFO 11-21 16:24:07 [model_runner.py:302] Model loading took 3.86 GiB and 2.14 seconds"),
    (58.9, "(EngineCore pid=2) INFO 11-21 16:24:33 [monitor.py:53] torch.compile took 25.53 s in total"),
]


def test_stages_are_read_from_the_log() -> None:
    server = StartedServer(8100, LOG, healthy=75.0)
    assert server.stages() == {
        "server's imports": 14.6,
        "engine's process and imports": 30.1,
        "weights": 32.5,
        "compilation": 58.9,
        "healthy": 75.0,
    }
    figures = {one.name: one.value for one in start_figures(server, {}, 1.5)}
    assert figures["start: compilation"] == pytest.approx(26.4)
    assert figures["start to first token"] == 76.5
    parts = [value for name, value in figures.items() if name.startswith("start: ")]
    assert sum(parts) == pytest.approx(76.5)
    assert not any("config:" in line for line in server.timing_lines())


def test_tokens_between_two_moments_are_counted() -> None:
    found = Streamed(((0.1, 1), (0.2, 2), (0.4, 5), (0.5, 6)), "")
    assert (found.first, found.last) == (0.1, 0.5)
    assert found.between(0.1, 0.45) == 4
    assert found.between(0.0, 0.05) == 0
