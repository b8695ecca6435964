"""Where vLLM 0.8's own runner places words before it replays a graph, with torch and vLLM: run as test_awq.py is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.plugins import load_general_plugins

load_general_plugins()  # as each of vLLM's processes does before it imports its worker; by the image's own PYTHONPATH
from vllm.worker import model_runner  # noqa: E402


def replayed(positions: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """What a graph that was captured for as many sequences is replayed with, after one of pictures."""
    monkeypatch.setattr(model_runner, "get_forward_context", lambda: SimpleNamespace(attn_metadata=None))
    monkeypatch.setattr(model_runner, "get_pp_group", lambda: SimpleNamespace(is_last_rank=True))
    sequences = positions.shape[-1]
    held: list[torch.Tensor] = []
    runner: Any = model_runner.CUDAGraphRunner.__new__(model_runner.CUDAGraphRunner)
    torch.nn.Module.__init__(runner)
    runner.backend_name, runner._is_encoder_decoder_model = "NO_ATTENTION", False
    runner.attn_state = SimpleNamespace(prepare_graph_input_buffers=lambda *_: None)
    captured = torch.full((3, sequences), 999)
    runner.input_buffers = {"input_ids": torch.zeros(sequences, dtype=torch.long), "positions": captured}
    runner.output_buffers = {"hidden_states": torch.zeros(1)}
    runner._graph = SimpleNamespace(replay=lambda: held.append(captured.clone()))
    runner.forward(torch.ones(sequences, dtype=torch.long), positions, None)
    return held[0]


@pytest.mark.parametrize("sequences", range(1, 6))
def test_words_of_texts_are_placed_alike_in_all_three_ways(sequences: int, monkeypatch: pytest.MonkeyPatch) -> None:
    places = torch.arange(20, 20 + sequences)
    assert torch.equal(replayed(places, monkeypatch), places.expand(3, sequences))


@pytest.mark.parametrize("sequences", range(1, 6))
def test_words_after_pictures_keep_their_places(sequences: int, monkeypatch: pytest.MonkeyPatch) -> None:
    places = torch.arange(3 * sequences).view(3, sequences)
    assert torch.equal(replayed(places, monkeypatch), places)


def test_without_the_plugin_a_text_alone_is_in_a_wrong_place(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = model_runner.CUDAGraphRunner.forward
    monkeypatch.setattr(model_runner.CUDAGraphRunner, "forward", forward.__wrapped__)
    assert replayed(torch.tensor([20]), monkeypatch).tolist() == [[20], [999], [999]]
