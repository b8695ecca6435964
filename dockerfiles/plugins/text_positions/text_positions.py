"""Right positions for the words of a text without a picture, where vLLM's V0 replays CUDA graphs.

Qwen-VL places each word in three ways: in time, and in a picture's height and width. A graph is captured with a row
for each. Of texts alone vLLM 0.7 and 0.8 hand over one row, and copy it to as many rows as there are texts: with one or
two at a time, the rows that are left keep what the last replay had, so each word after the first is computed in a wrong
place. The answer gets worse and nothing says so (QwenLM/Qwen2.5-VL#1215; mended in vLLM 0.9 by PR 18526). Here the one
row is given for all three, which is what it means.

vLLM finds `register` by the entry point in the folder beside this file, which PYTHONPATH names. It calls it in the
server's process as well, which never imports the runner: importing it there would take two seconds of each start.
Source of the interfaces: vllm/plugins/__init__.py, CUDAGraphRunner of vllm/worker/model_runner.py@v0.7.3, v0.8.5.post1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

RUNNER = "vllm.worker.model_runner"


class _Finder:
    """Finds RUNNER as Python does; once it has been executed, its graphs get positions of all rows."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == RUNNER else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                give_all_rows(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def give_all_rows(module: Any) -> None:
    """Have graphs replayed with positions of as many rows as they were captured with."""
    replay = module.CUDAGraphRunner.forward
    if hasattr(replay, "__wrapped__"):  # by an earlier call
        return

    @wraps(replay)
    def forward(self: Any, input_ids: Any, positions: Any, *rest: Any, **more: Any) -> Any:
        captured = self.input_buffers["positions"]
        if positions is not None and positions.dim() < captured.dim():
            positions = positions.expand(len(captured), -1)
        return replay(self, input_ids, positions, *rest, **more)

    module.CUDAGraphRunner.forward = forward


def register() -> None:
    """Mend the runner, now or when it is imported. May be called again."""
    if RUNNER in sys.modules:
        give_all_rows(sys.modules[RUNNER])
    elif not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
