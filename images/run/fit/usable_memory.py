"""How much memory a card has for a program: as sold, less error correction, less the driver's share. Pure."""

from __future__ import annotations

import re

from images.cards import SHARED, Card

GIB = 2**30
# What the driver keeps of what NVML reports, so that torch sees less. As people quote torch.cuda.mem_get_info against
# the card's GiB: 3090 23.69 of 24, T4 14.58 of 15, A100 79.15 of 80, 5090 31.36 of 32 (issue threads, unverified).
DRIVER_PART = 0.02
DRIVER_LEAST = GIB // 2
# Cards with GDDR memory whose error correction is on as delivered: it takes one sixteenth (T4: 15 of 16 GB,
# L4: 22.5 of 24, A40: 45 of 48). HBM has room of its own for it.
_CORRECTED = re.compile(r"\b(?:T4G?|A2|A10[GM]?|A16|A40|L2|L4|L20|L40[SG]?)\b", re.IGNORECASE)
# What the hypervisor keeps of a vGPU profile, beside a sixteenth of it (NVIDIA AI Enterprise, vGPU: "Total Frame Buffer
# for vGPUs is Less Than the Total Frame Buffer on the Physical GPU").
_VGPU = 16 * 2**20


def sold_bytes(card: Card) -> int:
    """Bytes of a card known by name: its GB are GiB, less what error correction takes; of NVML's cards as NVML says."""
    whole = card.memory * GIB
    corrected = whole / 16 if _CORRECTED.search(card.name) and not card.source.startswith("NVML") else 0
    reserved = whole / 16 + _VGPU if card.source.startswith(SHARED) else 0
    return int(whole - corrected - reserved)


def usable(total: int) -> int:
    """Bytes that a program can have of ``total``: less the driver's share."""
    return max(0, total - max(DRIVER_LEAST, int(total * DRIVER_PART)))
