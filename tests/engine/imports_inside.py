"""What vLLM can import in an image, each module in a process of its own; run inside, with Python alone.

    python imports_inside.py CAPABILITY MODULE...     prints JSON: {MODULE: "" or the error's type, text and place}
    python imports_inside.py CAPABILITY --help        what `python -m vllm.entrypoints.openai.api_server --help` prints

A module "vllm.tool_parsers.*" means all modules below; what the image's vLLM does not have is left out. With a
capability ("9.0"; "" for none) vLLM takes its way for such a card: modules ask the platform when they are imported. The
processes are forks of one that has imported the first module, so that each costs what it adds.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import runpy
import signal
import subprocess  # noqa: TID251  runs in an image, alone
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SECONDS = 120
SERVER = "vllm.entrypoints.openai.api_server"
_ROOM = 4000  # characters of an error


_DRIVER_CALL = re.compile(rb"\0(cu[A-Z][A-Za-z0-9]+(?:_v\d)?)(?=\0)")
_ALWAYS = frozenset({"cuInit", "cuDriverGetVersion", "cuGetErrorString", "cuGetErrorName"})


def load_driver(site: Path) -> None:
    """Load a driver that refuses every call, with all functions that vLLM's libraries name."""
    libraries = site.glob("vllm/**/*.so")
    names = {found.decode() for library in libraries for found in _DRIVER_CALL.findall(library.read_bytes())}
    source = "".join(f"int {name}(void) {{ return 100; }}\n" for name in sorted(names | _ALWAYS))
    command = ["gcc", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "/tmp/libcuda.so.1", "-x", "c", "-"]
    subprocess.run(command, input=source.encode(), check=True, timeout=SECONDS)
    ctypes.CDLL("/tmp/libcuda.so.1", mode=ctypes.RTLD_GLOBAL)


def modules_below(site: Path, pattern: str) -> Iterator[str]:
    """The modules that a pattern means, of those there are."""
    name = pattern.removesuffix(".*")
    place = site.joinpath(*name.split("."))
    if pattern.endswith(".*"):
        for path in sorted(place.rglob("*.py")):
            yield ".".join(path.relative_to(site).with_suffix("").parts).removesuffix(".__init__")
    elif place.is_dir() or place.with_suffix(".py").is_file():
        yield name


def act_as(capability: str) -> None:
    """Make vLLM believe in one card of that capability, whose driver is a stand-in that answers nothing."""
    for name, backend in importlib.import_module("triton.backends").backends.items():
        backend.driver.is_active = staticmethod(lambda name=name: name == "nvidia")
    platforms: Any = importlib.import_module("vllm.platforms")
    cuda = importlib.import_module("vllm.platforms.cuda")
    interface = importlib.import_module("vllm.platforms.interface")
    card = interface.DeviceCapability(*map(int, capability.split(".")))

    class Acted(cuda.NonNvmlCudaPlatform):  # type: ignore[misc,name-defined]
        """That card."""

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return card

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return f"card of {capability}"

    platforms._current_platform = Acted()


def import_apart(module: str) -> str:
    """Import it in a fork; what went wrong, "" if nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        error = ""
        try:
            importlib.import_module(module)
        except BaseException as caught:
            last = traceback.extract_tb(caught.__traceback__)[-1]
            error = f"{type(caught).__name__}: {caught} ({last.filename}:{last.lineno})"
        os.write(writer, f"done {error[:_ROOM]}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        answer = told.read(2 * _ROOM).decode(errors="replace")
    os.waitpid(child, 0)
    return answer.removeprefix("done ") if answer else f"the process ended, or took {SECONDS} s"


def main(words: Sequence[str]) -> int:
    """The command line."""
    capability, *patterns = words
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("vllm")
    site = Path(spec.origin).parents[1]
    modules = [module for pattern in patterns for module in modules_below(site, pattern)]
    importlib.import_module("torch")
    if capability:
        load_driver(site)
        act_as(capability)
    importlib.import_module("vllm.platforms")
    if patterns == ["--help"]:
        sys.argv = [SERVER, "--help"]
        runpy.run_module(SERVER, run_name="__main__", alter_sys=True)
    with suppress(Exception):  # told below, with the others
        importlib.import_module(modules[0])
    print(json.dumps({module: import_apart(module) for module in modules}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
