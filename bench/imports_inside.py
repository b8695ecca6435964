"""Run in an image by `bench start`: what importing its server costs. Standard library until the imports themselves.

    python imports_inside.py vllm|transformers [count]

One line of JSON: ``torch`` and ``server``, processor seconds of this process until torch is there, and until all of the
server is; ``modules`` that are loaded then. With ``count`` also ``opened``, files that Python opened; the seconds are
then longer than they need be.
"""

from __future__ import annotations

import importlib
import json
import resource
import runpy
import sys
from collections.abc import Callable

HOME = "/opt/cardstock"


def processor_seconds() -> float:
    """Of this process, in its own code and in the kernel's."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def importer(backend: str) -> Callable[[], object]:
    """What imports the server as a container's start does."""
    if backend == "vllm":
        start = runpy.run_path(f"{HOME}/start_vllm.py", run_name="start_vllm")
        return lambda: start["import_all"]([start["SERVER"]])
    sys.path.insert(0, HOME)
    return lambda: [importlib.import_module(name) for name in ("uvicorn", "app", "generate", "transformers")]


def main(backend: str, count: bool) -> None:
    """Import, and tell what it took."""
    opened = []
    if count:
        sys.addaudithook(lambda event, _: opened.append(event) if event == "open" else None)
    load = importer(backend)
    begun = processor_seconds()
    importlib.import_module("torch")
    torch = processor_seconds() - begun
    load()
    told = {"torch": torch, "server": processor_seconds() - begun, "modules": len(sys.modules)}
    print(json.dumps(told | ({"opened": len(opened)} if count else {})))


if __name__ == "__main__":
    main(sys.argv[1], "count" in sys.argv[2:])
