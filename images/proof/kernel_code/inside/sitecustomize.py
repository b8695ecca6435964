"""Writes down every Triton kernel that this process compiles: mounted beside a server, first on PYTHONPATH.

Into the folder CARDSTOCK_TRITON_TRACE, a file a process, a line of JSON a kernel: {"entry", "key", "target", "shared",
"dots"} or {"problem"}. It changes nothing of what is compiled, and no fault of its own ends the server. A sitecustomize
that would be found without it runs as well.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  (runs before every program: no more imports)
FOLDER = os.environ.get("CARDSTOCK_TRITON_TRACE", "")


def write(line: dict[str, Any]) -> None:
    """A line of this process's file; a folder that cannot be written to is no reason to end."""
    try:
        path = os.path.join(FOLDER, f"{os.getpid()}.jsonl")  # noqa: PTH118
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        print(f"a Triton kernel was not written down: {error}", file=sys.stderr)


def note(source: Any, options: Any, kernel: Any) -> None:
    """Write down what was compiled."""
    try:
        if not hasattr(source, "fn"):  # the text of a kernel in one of Triton's own forms
            write({"problem": f"compiled from a file: {source!s:.200}"})
            return
        import kernel_entries  # type: ignore[import-not-found,unused-ignore]

        entry = kernel_entries.entry_of(source, options)
        metadata = kernel.metadata
        line = {"entry": entry, "key": kernel_entries.key_of(entry), "target": str(metadata.target.arch)}
        write(line | {"shared": metadata.shared, "dots": str(kernel.asm["ttir"]).count("tt.dot")})
    except Exception as error:
        fn = getattr(getattr(source, "fn", None), "fn", None)
        where = f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', '?')}"
        write({"problem": f"{where}: {type(error).__name__}: {error}"})


def install(triton: ModuleType) -> None:
    """Put `note` behind `triton.compile`, under each of its names."""
    from triton import compiler

    original = compiler.compile

    def compile_and_note(src: Any, target: Any = None, options: Any = None, **more: Any) -> Any:
        kernel = original(src, target=target, options=options, **more)
        note(src, options, kernel)
        return kernel

    triton.compile = compiler.compile = compiler.compiler.compile = compile_and_note  # type: ignore[attr-defined]


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls `install` once the package triton is imported; whoever only asks where it is imports nothing."""

    def __init__(self) -> None:
        self.asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that is found without this, with an end of its own."""
        if fullname != "triton" or self.asking:
            return None
        self.asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.asking = False
        if spec is None or spec.loader is None:
            return spec
        loader = spec.loader
        execute = loader.exec_module

        def execute_and_install(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            try:
                install(module)
            except Exception as error:
                write({"problem": f"Triton could not be watched: {type(error).__name__}: {error}"})

        loader.exec_module = execute_and_install  # type: ignore[method-assign]
        return spec


def run_next() -> None:
    """The sitecustomize that stands behind this one, such as one that makes a card look like another."""
    places = [place for place in sys.path if os.path.abspath(place or ".") != HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", places)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize_behind"] = module
        spec.loader.exec_module(module)


if FOLDER and __name__ == "sitecustomize":
    sys.meta_path.insert(0, AfterImport())
    run_next()
