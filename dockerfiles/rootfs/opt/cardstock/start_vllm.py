"""Runs vLLM's server so that it starts sooner. What it serves, and how, stays vLLM's own.

    python start_vllm.py [flags of vllm.entrypoints.openai.api_server]

While modules are imported, Python collects no garbage: there is hardly any, and looking for it among millions of new
objects is a quarter of the time. What was imported is then set apart: no later collection looks at it.

A process that vLLM spawns runs this file as well, before its own work (multiprocessing calls it ``__mp_main__``): it
imports the engine alone. Run as ``python -m vllm.entrypoints.openai.api_server``, each would import the server too.

CARDSTOCK_FORK_ENGINE says how the engine's process comes to be, where it is not as vLLM would have it: "early", forked
before the server has read its flags (early_engine.py), or "1", forked where vLLM spawns it.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import runpy
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SERVER = "vllm.entrypoints.openai.api_server"
# What the processes of an engine and of a worker import, from vLLM 0.19 on; older ones lack some of it.
ENGINE = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")


@cache
def use_kept() -> None:
    """Have imports find what the image has kept: where modules are, and what transformers asks at each import."""
    for name in ("module_places.py", "import_structure.py"):
        runpy.run_path(str(Path(__file__).with_name(name)))["replay"]()


def import_all(modules: Sequence[str]) -> None:
    """Import modules, with all that is kept of them, and collect nothing meanwhile.

    What cannot be imported is left to whoever needs it, who says better what is wrong.
    """
    gc.disable()
    use_kept()
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    gc.enable()


def fork_engine() -> None:
    """Have the engine's process forked from the server's, with all that is imported, where vLLM would spawn it.

    For the CPU vLLM spawns every process, as a worker reads the processors it is bound to from its environment when it
    is executed. Workers still are; the engine's process only schedules, and is bound to none.
    Source: vllm/platforms/cpu.py, vllm/v1/engine/utils.py, vllm/utils/ompmultiprocessing.py@v0.32.0.
    """
    starter: Any = importlib.import_module("vllm.v1.engine.utils")
    starter.get_mp_context = lambda: multiprocessing.get_context("fork")


def keep_set_apart() -> None:
    """Have vLLM leave set apart what it has set apart while it captured CUDA graphs.

    It lets everything loose again, imports too, looks through all of it, and a moment later does so once more to set it
    apart for good: 0.4 s of a start on an H200. What the capture itself leaves behind is looked through as before.
    Source: freeze_gc_for_cudagraph_capture and freeze_gc_heap of vllm/utils/gc_utils.py@v0.33.0.
    """
    with suppress(ImportError):
        collector: Any = importlib.import_module("vllm.utils.gc_utils")
        collector.gc = SimpleNamespace(**{**vars(gc), "unfreeze": lambda: None})


def main(arguments: Sequence[str]) -> None:
    """Become vLLM's server; returns when it has ended."""
    forked = os.environ.get("CARDSTOCK_FORK_ENGINE")
    early: Any = importlib.import_module("early_engine") if forked == "early" else None
    engine = None
    # Python looks for modules beside a program first: those of this folder are not vLLM's.
    sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
    sys.argv = [SERVER, *arguments]
    if early:
        import_all(ENGINE)
        keep_set_apart()
        engine = early.fork(partial(import_all, early.WORKER), arguments)
    import_all([SERVER])
    keep_set_apart()
    if engine:
        early.hand_over(engine)
    elif forked == "1":
        fork_engine()
    # runpy warns of a module that is there already: it is run once more, now as the program.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    runpy.run_module(SERVER, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
elif __name__ == "__mp_main__":
    import_all(ENGINE)
    keep_set_apart()
