"""A host with cards and Docker's CLI: what is asked of both, and what every container there gets.

Standard library only, beyond this repository: a GPU host has no more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from images.core import process
from images.docker import Gpus

NO_CARD = 3  # what a program ends with that found none
VARIANT, INPUT = "dev.cardstock.variant", "dev.cardstock.input"  # images.render.labels, which needs more than Python
# NVLink's multicast stays off: on a card that others share, a program that ends badly with it can stop all of them.
NO_MULTICAST = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
}
# What decides what a server computes.
PACKAGES = (
    "torch", "torchvision", "triton", "vllm", "transformers", "flash-attn", "xformers", "numpy", "tokenizers"
)  # fmt: skip
_VERSIONS = """
import importlib.metadata as m, json, sys
print(json.dumps({n: m.version(n) for n in sys.argv[1:] if any(True for _ in m.distributions(name=n))}))
"""


def gpus_of(devices: Sequence[str], by: str) -> Gpus:
    """The cards of the host for a container: these by number or UUID, or all; ``by`` is "cdi" or "gpus"."""
    return Gpus(devices=tuple(devices), cdi=by == "cdi") if devices else Gpus(-1, cdi=by == "cdi")


def nvidia_smi(*query: str) -> str:
    """What nvidia-smi prints for a query, without header and units; "" where it is not or fails."""
    with suppress(process.ProcessFailed):
        return process.run(["nvidia-smi", *query, "--format=csv,noheader,nounits"], timeout=30).out
    return ""


def labels_of(image: str) -> dict[str, str]:
    """An image's labels. Raises ProcessFailed where the engine has none of that name."""
    argv = ["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image]
    labels: dict[str, str] | None = json.loads(process.run(argv, timeout=60).out)
    return labels or {}


def env_of(image: str) -> dict[str, str]:
    """An image's environment. Raises ProcessFailed where the engine has none of that name."""
    argv = ["docker", "image", "inspect", "--format", "{{json .Config.Env}}", image]
    pairs: list[str] | None = json.loads(process.run(argv, timeout=60).out)
    return dict(pair.split("=", 1) for pair in pairs or ())


def versions_in(image: str, names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The versions of an image's packages, of those that it has. Raises ProcessFailed."""
    argv = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", _VERSIONS, *names]
    return dict(json.loads(process.run(argv, timeout=120).out.splitlines()[-1]))


def own_checkout() -> Path:
    """The checkout that this program is of."""
    return Path(os.path.abspath(__file__)).parents[4]  # noqa: PTH100  (the place as it is mounted, links and all)
