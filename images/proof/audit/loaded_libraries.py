"""Which libraries a variant's server loads: recorded from a built image, kept as text, read by the audit's gate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from images.core import CheckFailed
from images.device_code.slim import is_nvidia_name
from images.docker import Engine

FOLDER = "images/proof/audit/loaded"
SCRIPT = Path(__file__).parents[1] / "smoke" / "inside" / "loaded_libraries.py"
_HEADER = "# Libraries below site-packages that the server loads, recorded in a container by `invoke served`."


def record_libraries(engine: Engine, image: str, python: str, modules: Sequence[str]) -> tuple[str, ...]:
    """Load the modules in a container of ``image``; paths below site-packages of what is mapped or asked for.

    NVIDIA's own libraries are left out: they choose among their kernels by themselves. Raises CheckFailed when a
    module fails for another reason than the driver that no container without a card has.
    """
    script = "/opt/served.py"
    home = {"HOME": "/cache"}
    finished = engine.run(image, [script, *modules], entrypoint=[python], files={script: SCRIPT.read_bytes()}, env=home)
    loaded = json.loads(finished.out.strip().splitlines()[-1])
    broken = broken_imports(loaded["failed"])
    if broken:
        raise CheckFailed(
            f"{image} cannot load what its server imports",
            cause="; ".join(f"{name}: {error}" for name, error in broken.items()),
            do="correct `serving` in matrix.yaml, or the stack's pins",
        )
    return tuple(sorted({*loaded["mapped"], *loaded["asked"]} - {p for p in loaded["mapped"] if owned_by_nvidia(p)}))


def broken_imports(failed: Mapping[str, str]) -> dict[str, str]:
    """Of modules that failed to load, and why: those that miss more than the driver, which only cards bring."""
    return {name: error for name, error in failed.items() if "libcuda.so" not in error}


def owned_by_nvidia(path: str) -> bool:
    """Whether a path below site-packages is of one of NVIDIA's own wheels, or NVIDIA's by its name.

    torch 2.4.1 brings ``torch/lib/libcusparseLt-f80c68d1.so.0``, torchvision ``torchvision.libs/libcudart….so.12``.
    """
    return path.startswith(("nvidia/", "cusparselt/", "nvidia_")) or is_nvidia_name(PurePosixPath(path).name)


def list_text(libraries: Sequence[str], image: str) -> str:
    """The list's file."""
    return "\n".join([_HEADER, f"# image: {image}", *libraries]) + "\n"


def parse_list(text: str) -> frozenset[str]:
    """The libraries of a list's file."""
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def read_list(root: Path, name: str) -> frozenset[str] | None:
    """The committed list of that name; None where none was recorded."""
    path = root / FOLDER / f"{name}.txt"
    return parse_list(path.read_text(encoding="utf-8")) if path.is_file() else None
