"""Files that nobody runs in an image: which, why, and away with them.

Run in builder stages, standard library only, and alone with record.py, so that NVIDIA's layer is made anew only when
one of the two changes:

    python -m images.device_code.unused drop SITE GLOB...   the engine's packages: UNUSED, and what the globs name
    python -m images.device_code.unused nvidia SITE         NVIDIA's wheels: OF_NVIDIA
    python -m images.device_code.unused no-card SITE        the same where no card is used: WITHOUT_A_CARD as well

NVIDIA's libraries stay as they came or go as a whole: its licences let nobody change one, and a program may ship the
ones that it uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from images.device_code.record import change_rows, owners

# What no server of Qwen2.5-VL runs, and why. Globs below site-packages, where "*" also crosses folders.
_TESTS = "tests of the package"  # not numpy's: numpy.testing imports some of them, and scipy that
_HEADERS = "for compiling against it: there is no compiler for that here"
_NVCC = (
    "NVIDIA's compiler, which some kernel packages of vLLM 0.25 ask for: Triton has its own, and images have no other"
)
_PROFILER = "Triton's profiler, a program of its own: no server starts it"
_RAY = "Ray's libraries above its core: a cluster, its tasks, actors and placement groups run without"
UNUSED = {
    "torch/include/*": _HEADERS,
    "torch/share/cmake/*": _HEADERS,
    "torch/test/*": "torch's own C++ tests",
    "torch/bin/protoc*": "for building torch",
    "triton/backends/nvidia/bin/cuobjdump": "for looking at kernels; compiling them takes ptxas alone",
    "triton/backends/nvidia/bin/nvdisasm": "for looking at kernels; compiling them takes ptxas alone",
    "triton/_C/libproton.so": _PROFILER,
    "triton/profiler/*": _PROFILER,
    "triton/backends/nvidia/lib/cupti*/*": f"{_PROFILER}; torch's profiler has CUPTI from NVIDIA's own wheel",
    "triton/instrumentation/*": "compiler passes for Triton's own tests",
    "ray/jars/*": "Ray's Java workers",
    "ray/rllib/*": "Ray's reinforcement learning",
    **{f"ray/{part}/*": _RAY for part in ("air", "data", "llm", "serve", "train", "tune")},
    "ray/dashboard/client/*": "the dashboard's pages: its server needs ray[default], which no lock has",
    "mistral_common/data/*": "vocabularies of Mistral's models",
    "pycountry/locales/*": "names of countries in other languages",
    "*/lib/*.a": "static archives: for linking, not for running",
    "pyarrow/include/*": _HEADERS,
    "*.js.map": "for debugging web pages",
    "nvidia/*/bin/*": _NVCC,
    "nvidia/*/nvvm/*": _NVCC,
    "cupy/_core/include/*/tests/*": _TESTS,
    **{f"{package}/tests/*": _TESTS for package in ("llvmlite", "mpmath", "numba", "pandas", "pyarrow", "setuptools")},
    **{f"{package}/*/tests/*": _TESTS for package in ("networkx", "numba", "ray", "scipy", "sympy")},
}
# Of NVIDIA's wheels. No library of an image needs one of these (DT_NEEDED), and none names it to load it later.
_PROFILING = "CUPTI's profiling of single kernels; torch's profiler takes its activities, which need none of it"
OF_NVIDIA = {
    "nvidia/*/lib/libcusolverMg.so.*": "dense solvers over several cards: torch has no call of it",
    "nvidia/cudnn/lib/libcudnn_adv.so.*": "recurrent networks, CTC loss, cuDNN's old attention: no layer of it",
    "nvidia/*/lib/libnvperf_*.so": _PROFILING,
    "nvidia/*/lib/libcheckpoint.so": _PROFILING,
    "nvidia/*/lib/libpcsamplingutil.so": _PROFILING,
    "nvidia/*/lib/libcufftw.so.*": "FFTW's interface",
    "nvidia/*/lib/libnvblas.so.*": "to be preloaded under a program that calls BLAS",
    "nvidia/nvshmem/lib/*.a": "static archives: for linking, not for running",
    "nvidia/nvshmem/lib/libnvshmem_device.bc": "for compiling kernels that send to other cards",
}
# Loaded by name once a card is there.
_LATER = "loaded when a card is used"
WITHOUT_A_CARD = {
    **{f"nvidia/cudnn/lib/libcudnn_{part}*.so.*": _LATER for part in ("cnn", "engines", "heuristic", "ops")},
    "nvidia/*/lib/libnvrtc.alt.so.*": _LATER,
    "nvidia/*/lib/libnvrtc-builtins*": _LATER,
    "nvidia/nvshmem/lib/nvshmem_*": _LATER,
}


def matching(site: Path, globs: Sequence[str]) -> Iterator[Path]:
    """Files below ``site`` whose path there matches one of ``globs`` ("*" also crosses folders)."""
    for root, _, files in os.walk(site):
        for name in files:
            path = Path(root, name)
            if any(fnmatchcase(str(path.relative_to(site)), glob) for glob in globs):
                yield path


def drop(site: Path, globs: Sequence[str]) -> int:
    """Delete what matches, the folders it leaves empty, and its rows in RECORD; the bytes given back."""
    found = sorted(matching(site, globs))
    freed = sum(path.lstat().st_size for path in found)
    owned = owners(site.resolve())
    rows: dict[Path, set[str]] = {}
    for path in found:
        if owner := owned.get(path.resolve()):
            rows.setdefault(owner.record, set()).add(owner.row)
        path.unlink()
    remove_empty(site, found)
    for record, gone in rows.items():
        change_rows(record, dict.fromkeys(gone))
    return freed


def remove_empty(site: Path, files: Iterable[Path]) -> None:
    """Remove the folders that held ``files`` below ``site`` and hold nothing now."""
    folders = {parent for path in files for parent in path.parents if site in parent.parents}
    folders |= {folder / "__pycache__" for folder in folders}
    for folder in sorted(folders, key=lambda one: (-len(one.parts), one)):
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()


def main(words: Sequence[str]) -> int:
    """The command line; exit code 2 for words it does not know."""
    match list(words):
        case ["drop", site, *more]:
            globs = [*UNUSED, *more]
        case ["nvidia", site]:
            globs = list(OF_NVIDIA)
        case ["no-card", site]:
            globs = [*OF_NVIDIA, *WITHOUT_A_CARD]
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    print(f"unused: {drop(Path(site), globs) / 1e6:.1f} MB that nobody runs dropped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
