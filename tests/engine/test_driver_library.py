"""The driver's library in the real image for 7.5, as hosts give it without NVIDIA's hook: a stand-in for libcuda.so.1.

Triton's own look-up must find it, and gcc must link with what Triton found.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from images.docker.engine import Engine
from tests.helpers.matrices import matrix

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
SOURCE = b"int cuInit(unsigned flags) { return flags ? 1 : 100; }\n"
NAMED = "-Wl,-soname,libcuda.so.1"
COMPILE = f"gcc -shared -fPIC {NAMED} -o /tmp/cuda.so /tmp/cuda.c && base64 /tmp/cuda.so"
ASK = """
import ctypes, json, os, subprocess, tempfile
from triton.backends.nvidia.driver import libcuda_dirs
found = libcuda_dirs()
with tempfile.TemporaryDirectory() as folder:
    program, source = f"{folder}/program.so", f"{folder}/program.c"
    open(source, "w").write("int cuInit(unsigned); int ask(void) { return cuInit(0); }")
    where = [f"-L{place}" for place in found]
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", program, source, *where, "-lcuda"], check=True)
    said = ctypes.CDLL(program).ask()
print(json.dumps({"found": found, "said": said, "cache": os.environ["TRITON_CACHE_DIR"]}))
"""


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The image for 7.5; it is not built for these tests."""
    name = f"{matrix().image}:{SM75}"
    if engine.inspect(name) is None:
        pytest.skip(f"{name} is not built: ./inv build --arch 7.5")
    return name


@pytest.fixture(scope="module")
def library(engine: Engine, image: str) -> bytes:
    """The stand-in, compiled in the image."""
    return base64.b64decode(engine.run(image, ["sh", "-c", COMPILE], files={"/tmp/cuda.c": SOURCE}).out)


def ask(engine: Engine, image: str, library: bytes, place: str, **more: Any) -> dict[str, Any]:
    """What Triton finds, and what a program says that is linked with it."""
    ran = engine.run(image, ["python", "-c", ASK], files={place: library}, **more)
    told: dict[str, Any] = json.loads(ran.out.splitlines()[-1])
    return told


@pytest.mark.parametrize(
    "place",
    [
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1",  # a CDI spec without the hook for ldconfig
        "/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05",  # nor the one for links
        "/usr/lib64/libcuda.so.1",  # from a host of Red Hat's kind
        "/usr/lib/wsl/lib/libcuda.so.1",  # Windows' Linux
        "/usr/local/nvidia/lib64/libcuda.so.1",
    ],
)
def test_triton_finds_the_drivers_library(place: str, engine: Engine, image: str, library: bytes) -> None:
    told = ask(engine, image, library, place)
    assert told == {"found": ["/cache/driver"], "said": 100, "cache": "/cache/triton"}


def test_it_is_found_by_a_user_who_may_write_below_tmp_alone(engine: Engine, image: str, library: bytes) -> None:
    told = ask(engine, image, library, "/usr/lib64/libcuda.so.1", user="4321")
    assert told == {"found": ["/tmp/cardstock/driver"], "said": 100, "cache": "/tmp/cardstock/triton"}


def test_without_a_driver_triton_is_told_nothing(engine: Engine, image: str) -> None:
    ran = engine.run(image, ["sh", "-c", 'echo "${TRITON_LIBCUDA_PATH-none} ${LD_LIBRARY_PATH-none}"'])
    assert ran.out.strip() == "none none"
