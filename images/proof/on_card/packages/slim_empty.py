"""A small CUDA library with one kernel for this card and one for others only: what a container without code does.

    python slim_empty.py build FOLDER       needs nvcc
    python slim_empty.py run LIBRARY        one process: each kernel's cudaError_t and answer, as JSON

Started by slim_identity.py.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

from images.core import process

SOURCE = """
#include <cuda_runtime.h>
__global__ void put_NAME(int *out, int value) { *out = value; }
extern "C" int run_NAME(int *answer) {
    int *place = nullptr;
    cudaError_t error = cudaMalloc(&place, sizeof(int));
    if (error) return error;
    put_NAME<<<1, 1>>>(place, VALUE);
    error = cudaGetLastError();
    if (!error) error = cudaDeviceSynchronize();
    if (!error) error = cudaMemcpy(answer, place, sizeof(int), cudaMemcpyDeviceToHost);
    cudaFree(place);
    return error;
}
extern "C" const char *name_NAME(int error) { return cudaGetErrorString((cudaError_t)error); }
"""
KERNELS = {"here": (41, ("80", "90")), "elsewhere": (43, ("75", "80"))}


def build(folder: Path) -> Path:
    """Compile the library into ``folder``. Raises ProcessFailed without nvcc or a host compiler."""
    objects = []
    for name, (value, archs) in KERNELS.items():
        source = folder / f"{name}.cu"
        source.write_text(SOURCE.replace("NAME", name).replace("VALUE", str(value)), encoding="utf-8")
        codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
        objects.append(str(source.with_suffix(".o")))
        process.run(["nvcc", "-Xcompiler", "-fPIC", *codes, "-c", str(source), "-o", objects[-1]])
    library = folder / "libemptied.so"
    process.run(["nvcc", "-shared", *objects, "-o", str(library)])
    return library


def run(library: Path) -> dict[str, list[object]]:
    """Kernel -> error number (0: it ran), its text, and the answer (0 if it did not run)."""
    loaded = ctypes.CDLL(str(library))
    results: dict[str, list[object]] = {}
    for name in ("elsewhere", "here", "elsewhere"):  # the good one after a failure, too
        answer = ctypes.c_int(0)
        error = getattr(loaded, f"run_{name}")(ctypes.byref(answer))
        text = getattr(loaded, f"name_{name}")
        text.restype = ctypes.c_char_p
        results[name] = [error, text(error).decode(), answer.value]
    return results


if __name__ == "__main__":
    if sys.argv[1] == "build":
        print(build(Path(sys.argv[2])))
    else:
        print(json.dumps(run(Path(sys.argv[2]))))
