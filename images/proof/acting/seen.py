"""Inside an acted container: what each way to ask for the card tells, and whether its limits hold. One JSON file.

    python -m images.proof.acting.seen --out FILE

A kernel of Triton is compiled for the acted card and run on the real one; more memory than the acted card has is asked
for, and must be refused.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from images.proof.acting.log import kernels_by_target
from images.proof.on_card.runs import ROOTFS


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def add_kernel(left, right, out, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """``out`` = ``left`` + ``right``, ``size`` numbers."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    tl.store(out + at, tl.load(left + at, mask=inside) + tl.load(right + at, mask=inside), mask=inside)


def by_torch() -> dict[str, Any]:
    """Properties, capability, name and memory."""
    seen = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info()
    return {
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "name": torch.cuda.get_device_name(),
        "sms": seen.multi_processor_count,
        "shared memory": getattr(seen, "shared_memory_per_block_optin", None),
        "memory": total,
        "free is less": free < total,
        "properties": f"{seen.major}.{seen.minor} {seen.name}",
    }


def by_pynvml(name: str) -> dict[str, Any]:
    """Of a module such as "vllm.third_party.pynvml"."""
    from importlib import import_module

    nvml = import_module(name)
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    told = nvml.nvmlDeviceGetName(handle)
    capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return {
        "capability": ".".join(map(str, capability)),
        "name": told.decode() if isinstance(told, bytes) else told,
        "memory": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
    }


def by_preflight() -> dict[str, Any]:
    """As the image's preflight reads NVML, which is not patched."""
    sys.path.insert(0, str(ROOTFS))
    from nvml import read_machine  # type: ignore[import-not-found,unused-ignore]

    machine = read_machine(ctypes.CDLL)
    return {"capability": ".".join(map(str, machine.cards[0].capability)), "name": machine.cards[0].name}


def by_triton() -> dict[str, Any]:
    """Target and limits; an addition that is compiled for the target and run."""
    driver = triton.runtime.driver.active
    properties = driver.utils.get_device_properties(torch.cuda.current_device())
    left = torch.arange(1000, device="cuda", dtype=torch.float32)
    out = torch.empty_like(left)
    add_kernel[(4,)](left, left, out, 1000, BLOCK=256)
    return {
        "target": driver.get_current_target().arch,
        "shared memory": properties["max_shared_mem"],
        "sms": properties["multiprocessor_count"],
        "right": bool(torch.equal(out, left + left)),
        "kernels": kernels_by_target(Path(os.environ["TRITON_CACHE_DIR"])),
    }


def over_memory() -> str:
    """What torch says to a request for 1.05 of the acted card's memory; "" where it gives it."""
    size = int(torch.cuda.mem_get_info()[1] * 1.05)
    try:
        held = torch.empty(size, dtype=torch.uint8, device="cuda")
    except torch.cuda.OutOfMemoryError as error:
        return str(error)[:200]
    del held
    return ""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    told: dict[str, Any] = {}
    for name, ask in (
        ("torch", by_torch),
        ("pynvml", lambda: by_pynvml("pynvml")),
        ("vLLM's pynvml", lambda: by_pynvml("vllm.third_party.pynvml")),
        ("preflight", by_preflight),
        ("Triton", by_triton),
    ):
        try:
            told[name] = ask()
        except Exception as error:
            told[name] = {"error": f"{type(error).__name__}: {error}"[-800:]}
    told["memory refused"] = over_memory()
    words.out.write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
