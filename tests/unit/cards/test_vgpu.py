"""Names that NVML gives in clouds: vGPU profiles, and boards that no shop sells."""

from __future__ import annotations

import pytest

from images.cards import named
from images.cards.data import all_cards
from images.cards.names import match_card
from images.cards.this_machine import LocalCard, LocalMachine
from images.cards.vgpu import read_profile
from images.core.errors import UsageError
from images.matrix.arch import Arch

PROFILES = [
    ("V100D-8Q", "Tesla V100 PCIe 32 GB", "7.0", 8),
    ("GRID V100DX-32C", "Tesla V100 SXM2 32 GB", "7.0", 32),
    ("GRID V100S-32Q", "Tesla V100S PCIe 32 GB", "7.0", 32),
    ("GRID T4-16Q", "Tesla T4", "7.5", 16),
    ("T4-2B4", "Tesla T4", "7.5", 2),
    ("GeForce RTX T10-8", "GRID RTX T10-4", "7.5", 8),
    ("GRID RTX6000-24Q", "Quadro RTX 6000", "7.5", 24),
    ("RTX8000P-48C", "Quadro RTX 8000", "7.5", 48),
    ("NVIDIA A40-48Q", "A40 PCIe", "8.6", 48),
    ("NVIDIA A10-4Q", "A10 PCIe", "8.6", 4),
    ("NVIDIA RTXA6000-24C", "RTX A6000", "8.6", 24),
    ("GRID A100D-80C", "A100 PCIe 80 GB", "8.0", 80),
    ("GRID A100-4-20C", "A100 PCIe 40 GB", "8.0", 20),
    ("A100X-40C", "A100 SXM4 40 GB", "8.0", 40),
    ("A100D-1-10CME", "A100 PCIe 80 GB", "8.0", 10),
    ("A800DX-80C", "A800 SXM4 80 GB", "8.0", 80),
    ("A30-1-6C", "A30 PCIe", "8.0", 6),
    ("NVIDIA L40S-48Q", "L40S", "8.9", 48),
    ("L40-24C", "L40", "8.9", 24),
    ("L2-24C", "L2", "8.9", 24),
    ("NVIDIA RTX6000-Ada-24C", "RTX 6000 Ada Generation", "8.9", 24),
    ("NVIDIA H100XM-80C", "H100 SXM5 80 GB", "9.0", 80),
    ("NVIDIA-H100XM-80C", "H100 SXM5 80 GB", "9.0", 80),
    ("H100XM-1-10CME", "H100 SXM5 80 GB", "9.0", 10),
    ("H100L-94C", "H100 NVL 94 GB", "9.0", 94),
    ("H200X-141C", "H200 SXM 141 GB", "9.0", 141),
    ("H20X-3-71C", "H20-3e", "9.0", 71),
    ("NVIDIA RTX Pro 6000 Blackwell DC-4-96Q", "RTX PRO 6000 Blackwell Server", "12.0", 96),
    ("DC-48Q", "RTX PRO 6000 Blackwell Server", "12.0", 48),
    ("nvidia_a40-48q", "A40 PCIe", "8.6", 48),
    ("P40-24Q", "Tesla P40", "6.1", 24),
]


@pytest.mark.parametrize(("said", "name", "arch", "memory"), PROFILES)
def test_a_profile_is_its_board_with_the_profiles_memory(said: str, name: str, arch: str, memory: float) -> None:
    found = match_card(said, all_cards())
    assert (found.card.name, found.card.arch.capability, found.card.memory) == (name, arch, memory)
    assert found.memories == (memory,)


@pytest.mark.parametrize(
    ("said", "arch", "memory"),
    [
        ("NVIDIA A100-SXM-64GB", "8.0", 64),
        ("NVIDIA PG506-230", "8.0", 96),
        ("NVIDIA PG506-232", "8.0", 96),
        ("PG506-242", "8.0", 64),
        ("NVIDIA A100-PG509-200", "8.0", 40),
        ("NVIDIA A100-PG506-207", "8.0", 24),
        ("NVIDIA DRIVE-PG199-PROD", "8.0", 32),
        ("NVIDIA AX800", "8.0", 80),
        ("NVIDIA L2", "8.9", 24),
        ("Tesla T40", "7.5", 24),
        ("Tesla V100-SXM2-32GB-LS", "7.0", 32),
        ("NVIDIA A800 80GB PCIe LC", "8.0", 80),
    ],
)
def test_boards_of_clouds_have_their_capability_and_memory(said: str, arch: str, memory: float) -> None:
    found = match_card(said, all_cards()).card
    assert (found.arch.capability, found.memory) == (arch, memory)


@pytest.mark.parametrize(
    "said", ["RTX 4090", "PG506-230", "A100-SXM4-40GB", "Tesla V100-SXM2-32GB", "Quadro T2000", "GTX 1660 Ti", "H20-3e"]
)
def test_a_card_is_no_profile(said: str) -> None:
    assert read_profile(said) is None


def test_a_name_that_no_list_has_is_this_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = LocalCard("NVIDIA Graphics Device", "GPU-1", Arch(9, 0), 96 * 2**30)
    monkeypatch.setattr(named, "read_machine", lambda: LocalMachine("580.65.06", "13.0", (own,)))
    (found,) = named.named_cards(["graphics device"])
    assert (found.arch, found.memory) == (Arch(9, 0), 96)
    with pytest.raises(UsageError, match="no NVIDIA card is called 'Frobnicator'") as caught:
        named.named_cards(["Frobnicator"], by_arch=True)
    assert "--arch 7.5" in caught.value.do and "compute_cap" in caught.value.do
