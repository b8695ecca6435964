"""The compilers and the torch that a kernel is built with: where they are, and which they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.kernels.inside.failure import REFUSED, Failure

STAGE = "/run/build/toolkit"

_TORCH = """
import json, sys, importlib.metadata as m
import torch
print(json.dumps({
    "torch": m.version("torch"), "cuda": torch.version.cuda, "cxx11_abi": torch.compiled_with_cxx11_abi(),
    "python": "%d.%d" % sys.version_info[:2],
}))
"""


@dataclass(frozen=True)
class Toolchain:
    """``home`` is CUDA_HOME; versions as the programs say; ``torch`` as installed, ``cuda`` what it was made with."""

    home: str
    nvcc: str
    gcc: str
    torch: str
    cuda: str
    python: str
    cxx11_abi: bool


def output(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """What a program prints. Raises Failure when it cannot be run or says no."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    except OSError as error:
        raise Failure(f"{argv[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise Failure(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def find(cuda: str, stage: str = STAGE, env: Mapping[str, str] | None = None) -> Toolchain:
    """The toolchain for CUDA ``cuda``: from the builder's toolkit stage, else CUDA_HOME, else the nvcc on PATH.

    Raises Failure when there is no nvcc of that release, or torch was made with another CUDA release.
    """
    env = os.environ if env is None else env
    on_path = shutil.which("nvcc", path=env.get("PATH"))
    homes = [f"{stage}/opt/cuda", f"{stage}/usr/local/cuda-{cuda}", env.get("CUDA_HOME", "")]
    homes += [str(Path(on_path).resolve().parents[1])] if on_path else []
    home = next((place for place in homes if place and Path(place, "bin/nvcc").is_file()), None)
    if home is None:
        raise Failure("there is no nvcc: no toolkit stage, no CUDA_HOME, none on PATH", REFUSED)
    nvcc = nvcc_version(output([f"{home}/bin/nvcc", "--version"]))
    if nvcc.rpartition(".")[0] != cuda:
        raise Failure(f"{home}/bin/nvcc is {nvcc}, wanted is {cuda}", REFUSED)
    facts = json.loads(output([sys.executable, "-c", _TORCH]).splitlines()[-1])
    if facts["cuda"] != cuda:
        raise Failure(f"torch {facts['torch']} was made with CUDA {facts['cuda']}, wanted is {cuda}", REFUSED)
    return Toolchain(home=home, nvcc=nvcc, gcc=output(["g++", "-dumpfullversion"]).strip(), **facts)


def nvcc_version(text: str) -> str:
    """ "12.4.131" out of `nvcc --version`. Raises Failure for other text."""
    match = re.search(r"\bV(\d+\.\d+\.\d+)", text)
    if match is None:
        raise Failure(f"nvcc does not say its version: {text.strip()[:200]}")
    return match[1]
