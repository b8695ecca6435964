"""A source distribution of two small CUDA extensions, built through torch as xformers and flash-attn are."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

NAME, VERSION = "tiny", "1.0"

# The second extension comes when the first is done: between them a test may hold the build, or fill its disk.
SETUP = """
import pathlib, time
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

class Build(BuildExtension):
    def build_extension(self, ext):
        super().build_extension(ext)
        if pathlib.Path("/run/build/tiny/hold").exists():
            time.sleep(3600)
        if pathlib.Path("/run/build/tiny/fill").exists():
            with open("fill", "wb") as out:
                while True:
                    out.write(bytes(1 << 20))

setup(
    name="tiny", version="1.0", packages=["tiny"],
    ext_modules=[
        CUDAExtension("tiny.first", ["first.cpp", "one.cu", "two.cu"]),
        CUDAExtension("tiny.second", ["second.cpp", "three.cu"]),
    ],
    cmdclass={"build_ext": Build},
)
"""
MODULE = """
#include <Python.h>
static PyModuleDef def = {{PyModuleDef_HEAD_INIT, "{name}", nullptr, -1, nullptr}};
PyMODINIT_FUNC PyInit_{name}() {{ return PyModule_Create(&def); }}
"""
KERNEL = """
__device__ int salt_{salt}_{name};
__global__ void {name}(float *x) {{ x[threadIdx.x] *= {factor}; }}
void launch_{name}(float *x) {{ {name}<<<1, 32>>>(x); }}
"""


def sdist(folder: Path, salt: str) -> Path:
    """The archive; another ``salt`` makes other kernels of it, which no compiler cache has seen."""
    files = {
        "setup.py": SETUP,
        "tiny/__init__.py": "from tiny import first, second\n",
        "first.cpp": MODULE.format(name="first"),
        "second.cpp": MODULE.format(name="second"),
    }
    for factor, name in enumerate(("one", "two", "three"), start=2):
        files[f"{name}.cu"] = KERNEL.format(name=name, factor=factor, salt=salt)
    path = folder / f"{NAME}-{VERSION}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{NAME}-{VERSION}/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path
