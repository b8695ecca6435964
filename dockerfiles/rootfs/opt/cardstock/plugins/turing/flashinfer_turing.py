"""FlashInfer's attention for vLLM on cards of compute capability 7.5, where the image has its kernels.

vLLM 0.33.0 takes FlashInfer from 8.0 on, for its launcher asked 7.5 for more shared memory than there is
(flashinfer#3620; mended in flashinfer-python 0.7.2.post1, which it pins). This plugin puts a class derived from vLLM's
FlashInfer backend in its place, with 7.5 added to the cards that it takes. Without the kernel wheel it refuses: the
image has no nvcc, and FlashInfer would fail while the server starts.

vLLM is not told that FlashInfer is there at large (`has_flashinfer` stays as it is, False in an image without nvcc):
the attention backend does not ask, and what asks (top-k, norms, collectives) would take kernels that no wheel has.

vLLM finds `register` by the entry point in the folder beside this file, which PYTHONPATH names; CARDSTOCK_FLASHINFER
says that the image is meant for it. Source of the interfaces: vllm/plugins/__init__.py,
vllm/v1/attention/backends/registry.py@v0.33.0, flashinfer/jit/env.py@0.7.2.post1.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

CARDS = "7.5"
ARCHITECTURE = "sm75"
BACKEND = "flashinfer_turing_backend.FlashInferTuringBackend"
CURE = "take an image with --attention triton, or build this one again: ./inv build --arch 7.5 --attention flashinfer"


def missing() -> str:
    """Why FlashInfer's kernels for 7.5 cannot be used here; "" where they can.

    Nothing of FlashInfer itself is imported: that would start CUDA, and vLLM could no longer fork its engine.
    """
    try:
        wanted = version("flashinfer-python")
    except PackageNotFoundError:
        return "flashinfer-python is not installed"
    try:
        cache = import_module("flashinfer_jit_cache")
        found = cache.__version__
    except (ImportError, AttributeError):  # no such package, or a folder of its name without one
        return "the wheel flashinfer-jit-cache with the kernels is not installed"
    if found != wanted:
        return f"flashinfer-jit-cache is {found}, flashinfer-python {wanted}"
    held = {name for provider in cache.get_jit_cache_providers() for name in provider.cuda_architectures}
    if ARCHITECTURE not in held:
        return f"flashinfer-jit-cache holds code for {', '.join(sorted(held)) or 'no card'}, not {ARCHITECTURE}"
    return ""


def register() -> None:
    """Have vLLM take FlashInfer on 7.5. May be called again, also in a child process.

    Raises RuntimeError where the image is meant for it and the kernels cannot be used.
    """
    if os.environ.get("CARDSTOCK_FLASHINFER") != CARDS:
        return
    if reason := missing():
        raise RuntimeError(f"FlashInfer's attention cannot run on cards of {CARDS} here: {reason}. What to do: {CURE}")
    registry = import_module("vllm.v1.attention.backends.registry")
    registry.register_backend(registry.AttentionBackendEnum.FLASHINFER, BACKEND)
