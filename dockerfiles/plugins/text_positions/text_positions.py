"""Right positions for the words of a text without a picture, where vLLM's V0 replays CUDA graphs.

Qwen-VL places each word in three ways: in time, and in a picture's height and width. A graph is captured with a row
for each. Of texts alone vLLM 0.7 and 0.8 hand over one row, and copy it to as many rows as there are texts: with one or
two at a time, the rows that are left keep what the last replay had, so each word after the first is computed in a wrong
place. The answer gets worse and nothing says so (QwenLM/Qwen2.5-VL#1215; mended in vLLM 0.9 by PR 18526). Here the one
row is given for all three, which is what it means.

vLLM finds `register` by the entry point in the folder beside this file, which PYTHONPATH names. Source of the
interfaces: vllm/plugins/__init__.py, CUDAGraphRunner of vllm/worker/model_runner.py@v0.7.3, v0.8.5.post1.
"""

from __future__ import annotations

from functools import wraps
from importlib import import_module
from typing import Any

RUNNER = "vllm.worker.model_runner"


def register() -> None:
    """Have graphs replayed with positions of as many rows as they were captured with. May be called again."""
    runner = import_module(RUNNER).CUDAGraphRunner
    replay = runner.forward
    if hasattr(replay, "__wrapped__"):  # by an earlier call
        return

    @wraps(replay)
    def forward(self: Any, input_ids: Any, positions: Any, *rest: Any, **more: Any) -> Any:
        captured = self.input_buffers["positions"]
        if positions is not None and positions.dim() < captured.dim():
            positions = positions.expand(len(captured), -1)
        return replay(self, input_ids, positions, *rest, **more)

    runner.forward = forward
