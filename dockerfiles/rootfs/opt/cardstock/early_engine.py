"""The process of vLLM's engine, forked before the server's has read its flags.

vLLM starts its engine when the settings are worked out, and only then imports what a worker wants and opens the card.
Here that is done while the server imports what it alone wants and works out its settings.
Source: CoreEngineProcManager of vllm/v1/engine/utils.py, get_mp_context of vllm/utils/system_utils.py@v0.33.0.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.context import ForkProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

# What an engine of vLLM 0.25 and newer imports once it knows its card and its model.
WORKER = ("vllm.v1.worker.gpu_worker", "vllm.v1.worker.gpu_model_runner", "vllm.model_executor.models.qwen2_5_vl")
# Flags by which others than the engine open the cards, or may: a file of settings can say anything.
OTHERS = (
    "--tensor-parallel-size",
    "-tp",
    "--pipeline-parallel-size",
    "-pp",
    "--data-parallel-size",
    "-dp",
    "--distributed-executor-backend",
    "--nnodes",
    "-n",
    "--device-ids",
    "--numa-bind",
    "--config",
)


def only_worker(arguments: Sequence[str]) -> bool:
    """Whether the engine itself is all that opens a card, by the server's flags. vLLM takes flags shortened, too."""
    words = [word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("-")]
    return not any(word.startswith(flag) or flag.startswith(word) for word in words for flag in OTHERS)


class EarlyEngine(ForkProcess):
    """A process that prepares, waits for its work, and does it; it ends when the one that forked it does.

    ``work`` is sent to it pickled, as to a process that is spawned.
    """

    def __init__(self, prepare: Callable[[], None]) -> None:
        super().__init__()
        self._prepare = prepare
        self._inbox, self._outbox = Pipe(duplex=False)
        self._work = b""

    def fork(self) -> None:
        """Start to prepare."""
        super().start()
        self._inbox.close()
        # At the end multiprocessing waits for its processes; one without work would wait for some.
        atexit.register(self._outbox.close)

    def run(self) -> None:
        """In the new process."""
        self._outbox.close()
        self._prepare()
        try:
            environment, threads, name, work = pickle.loads(self._inbox.recv_bytes())  # noqa: S301
        except EOFError:
            return
        # What differs alone: a process whose variables have all moved cannot be given a title (setproctitle).
        for gone in os.environ.keys() - environment.keys():
            del os.environ[gone]
        os.environ.update({key: value for key, value in environment.items() if os.environ.get(key) != value})
        importlib.import_module("torch").set_num_threads(threads)
        self.name = name
        target, kwargs = pickle.loads(work)  # noqa: S301
        target(**kwargs)

    def takes(self, name: str, target: Callable[..., object], kwargs: Mapping[str, Any]) -> bool:
        """Whether it will do this: it lives, has nothing to do, and this can be sent."""
        if self._work or not self.is_alive():
            return False
        # A queue, say, is inherited by a fork and cannot be sent; each type refuses by an error of its own.
        with suppress(Exception):
            self.name, self._work = name, bytes(ForkingPickler.dumps((target, kwargs)))
        return bool(self._work)

    def start(self) -> None:
        """What vLLM calls: the work is sent, with what a process forked now would inherit."""
        threads = importlib.import_module("torch").get_num_threads()
        with suppress(BrokenPipeError):  # it has ended by now: vLLM looks after its engines
            self._outbox.send_bytes(ForkingPickler.dumps((dict(os.environ), threads, self.name, self._work)))


class Context:
    """A context of multiprocessing whose first process is the one that is there already."""

    def __init__(self, usual: Any, early: EarlyEngine) -> None:
        self._usual, self._early = usual, early

    def __getattr__(self, name: str) -> object:
        return getattr(self._usual, name)

    def Process(self, *, target: Callable[..., object], name: str, kwargs: Mapping[str, Any]) -> object:
        """As vLLM asks for an engine's."""
        if self._early.takes(name, target, kwargs):
            return self._early
        return self._usual.Process(target=target, name=name, kwargs=kwargs)


def fork(load: Callable[[], None], arguments: Sequence[str]) -> EarlyEngine | None:
    """Fork a process that does ``load``, and ONCE where it is to be the only worker, by the server's flags.

    None where vLLM does not fork: on WSL, whose NVML does not survive it, or where it is told to spawn.
    """
    # What vLLM does before it forks, too: threads of OpenMP, say, have to end, or the new process would wait for them.
    if importlib.import_module("vllm.v1.engine.utils").get_mp_context().get_start_method() != "fork":
        return None

    def prepare() -> None:
        load()
        for once in (open_card, *ONCE) if only_worker(arguments) else ():
            # Another version may lack it, and what is wrong with a card is said better by whoever needs it.
            with suppress(Exception):
                once()

    early = EarlyEngine(prepare)
    early.fork()
    return early


def hand_over(early: EarlyEngine) -> None:
    """Have vLLM's first engine be this process."""
    starter: Any = importlib.import_module("vllm.v1.engine.utils")
    usual = starter.get_mp_context
    starter.get_mp_context = lambda: Context(usual(), early)


def _trace() -> None:
    """torch's tracer, whose tables are made when it first traces: a graph of one addition, which nobody keeps."""
    torch: Any = importlib.import_module("torch")
    torch.compile(lambda tensor: tensor + 1, backend="eager")(torch.zeros(1))


# What a start does once in a process, whatever it serves: hashes of the compilers' own files, which keys of kept code
# begin with; the classes of all kinds of weights, of which vLLM imports each to choose one; what the processor imports.
ONCE: tuple[Callable[[], object], ...] = (
    lambda: importlib.import_module("vllm.model_executor.layers.quantization").get_quantization_config("awq"),
    lambda: importlib.import_module("triton.runtime.cache").triton_key(),
    lambda: importlib.import_module("torch._inductor.codecache").torch_key(),
    _trace,
    lambda: importlib.import_module("transformers.models.qwen2_5_vl.processing_qwen2_5_vl"),
)


def open_card() -> None:
    """Make CUDA's context on the first card, which an only worker takes."""
    importlib.import_module("torch.cuda").synchronize()
