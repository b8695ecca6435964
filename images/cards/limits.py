"""What a kernel may use on a card, by compute capability. Pure: no import but the standard library.

Sources, both read for CUDA 13.0: CUDA C++ Programming Guide, chapter "Compute Capabilities", table "Technical
Specifications per Compute Capability" (shared memory, registers), and the section "Shared Memory" of each capability
there (a block may use 1 KB less than its SM has, from 8.0 on; above 48 KB it asks for it). Which instructions of the
tensor cores there are: PTX ISA, "Warp Level Matrix Multiply-Accumulate Instructions" (mma.sync from 7.0 on),
"Asynchronous Warpgroup Level Matrix Instructions" (wgmma, 9.0a alone), "TensorCore 5th Generation Family Instructions"
(tcgen05, 10.0a and its family; 12.x has none of them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KIB = 1024
# Registers that one thread can have, and one block, since 5.0.
REGISTERS_A_THREAD = 255
REGISTERS_A_BLOCK = 64 * KIB
# What a block gets of shared memory without asking for more (static, or by a plain launch).
SHARED_WITHOUT_ASKING = 48 * KIB


@dataclass(frozen=True)
class KernelLimits:
    """Limits of one compute capability, in bytes.

    ``shared_a_block`` is what a block may ask for (cudaDevAttrMaxSharedMemoryPerBlockOptin), ``shared_an_sm`` what the
    multiprocessor has (cudaDevAttrMaxSharedMemoryPerMultiprocessor). ``tensor_cores`` are the PTX instructions that use
    them, the newest first; empty where the card has none.
    """

    shared_a_block: int
    shared_an_sm: int
    tensor_cores: tuple[str, ...]


def _limits(block: int, sm: int, *tensor_cores: str) -> KernelLimits:
    return KernelLimits(block * KIB, sm * KIB, tensor_cores)


LIMITS: Mapping[str, KernelLimits] = {
    "5.0": _limits(48, 64),
    "5.2": _limits(48, 96),
    "5.3": _limits(48, 64),
    "6.0": _limits(48, 64),
    "6.1": _limits(48, 96),
    "6.2": _limits(48, 64),
    "7.0": _limits(96, 96, "mma"),
    "7.2": _limits(96, 96, "mma"),
    "7.5": _limits(64, 64, "mma"),
    "8.0": _limits(163, 164, "mma"),
    "8.6": _limits(99, 100, "mma"),
    "8.7": _limits(163, 164, "mma"),
    "8.9": _limits(99, 100, "mma"),
    "9.0": _limits(227, 228, "wgmma", "mma"),
    "10.0": _limits(227, 228, "tcgen05", "mma"),
    "10.3": _limits(227, 228, "tcgen05", "mma"),
    "11.0": _limits(227, 228, "tcgen05", "mma"),
    "12.0": _limits(99, 100, "mma"),
    "12.1": _limits(99, 100, "mma"),
}


def limits_of(capability: str) -> KernelLimits:
    """The limits of "7.5". Raises KeyError for a capability that is not in the table, as for 7.5 with a suffix."""
    return LIMITS[capability]
