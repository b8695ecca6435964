"""The cards of a machine as NVML tells them, with a stand-in for the module pynvml."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from images.cards.this_machine import LocalCard, LocalMachine, MigInstance, read_machine
from images.matrix.arch import Arch

GIB = 2**30


class FakeNvml:
    """As pynvml answers on a machine with these cards; ``fails`` maps a function's name to the error it gives."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    NVML_ERROR_DRIVER_NOT_LOADED = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    NVML_ERROR_NO_PERMISSION = pynvml.NVML_ERROR_NO_PERMISSION
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH

    def __init__(self, *cards: dict[str, Any], fails: dict[str, int] | None = None) -> None:
        self._cards = cards
        self._fails = fails or {}
        self.ended = False

    def __getattribute__(self, name: str) -> Any:
        return (
            self._failing(name) if name.startswith("nvml") and name in self._fails else super().__getattribute__(name)
        )

    def _failing(self, name: str) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise pynvml.NVMLError(self._fails[name])

        return fail

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        self.ended = True

    def nvmlSystemGetDriverVersion(self) -> str:
        return "535.104.05"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12020

    def nvmlDeviceGetCount(self) -> int:
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        return self._cards[index]

    def nvmlDeviceGetName(self, card: dict[str, Any]) -> str | bytes:
        name: str | bytes = card["name"]
        return name

    def nvmlDeviceGetUUID(self, card: dict[str, Any]) -> str:
        return f"GPU-{card['name']}"

    def nvmlDeviceGetCudaComputeCapability(self, card: dict[str, Any]) -> tuple[int, int]:
        major, minor = card["arch"]
        return major, minor

    def nvmlDeviceGetMemoryInfo(self, card: dict[str, Any]) -> SimpleNamespace:
        if "memory" not in card:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=card["memory"])

    def nvmlDeviceGetMigMode(self, card: dict[str, Any]) -> tuple[int, int]:
        if "mig" not in card:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return card["mig"], card["mig"]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: dict[str, Any]) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: dict[str, Any], index: int) -> dict[str, Any]:
        if index >= len(card["slices"]):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        part: dict[str, Any] = card["slices"][index]
        return part


TURING = {"name": "NVIDIA GeForce RTX 2080 Ti", "arch": (7, 5), "memory": 11264 * 2**20}
A100 = {"name": b"NVIDIA A100-SXM4-40GB", "arch": (8, 0), "memory": 40 * GIB, "mig": 0}


def test_cards_driver_and_memory() -> None:
    nvml = FakeNvml(TURING, A100)
    found = read_machine(nvml)
    assert (found.driver, found.cuda, found.why) == ("535.104.05", "12.2", "")
    assert [(card.name, card.arch, card.mig) for card in found.cards] == [
        ("NVIDIA GeForce RTX 2080 Ti", Arch(7, 5), False),
        ("NVIDIA A100-SXM4-40GB", Arch(8, 0), False),
    ]
    assert [card.memory for card in found.as_cards()] == [11, 40]
    assert nvml.ended


def test_a_card_cut_by_mig_counts_as_its_largest_slice() -> None:
    slices = [{"name": f"NVIDIA A100-SXM4-40GB MIG {n}g.{m}gb", "memory": m * GIB} for n, m in ((1, 5), (2, 10))]
    found = read_machine(FakeNvml({**A100, "mig": 1, "slices": slices}))
    (card,) = found.cards
    assert card.mig
    assert card.slices[0] == MigInstance(
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "GPU-NVIDIA A100-SXM4-40GB MIG 1g.5gb", 5 * GIB
    )
    assert [one.memory for one in found.as_cards()] == [10]


def test_a_card_without_memory_of_its_own() -> None:
    found = read_machine(FakeNvml({"name": "NVIDIA GB10", "arch": (12, 1)}))
    assert [(card.arch, card.memory) for card in found.cards] == [(Arch(12, 1), 0)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "no permission"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "restart"),
        (pynvml.NVML_ERROR_UNKNOWN, "does not start"),
    ],
)
def test_a_machine_without_a_card_is_a_value(error: int, said: str) -> None:
    found = read_machine(FakeNvml(fails={"nvmlInit": error}))
    assert said in found.why
    assert found == LocalMachine(why=found.why)


def test_a_driver_without_a_card_and_one_that_breaks_off() -> None:
    assert read_machine(FakeNvml()).why == "the driver sees no card"
    nvml = FakeNvml(TURING, fails={"nvmlDeviceGetCount": pynvml.NVML_ERROR_GPU_IS_LOST})
    assert "NVML failed" in read_machine(nvml).why
    assert nvml.ended


def test_an_old_driver_that_cannot_tell_its_cuda_version() -> None:
    found = read_machine(
        FakeNvml(TURING, fails={"nvmlSystemGetCudaDriverVersion": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})
    )
    assert (found.cuda, len(found.cards)) == ("", 1)


@pytest.mark.parametrize(
    ("machine", "driver"),
    [
        (LocalMachine("535.104.05", "12.2", (LocalCard("a card", "GPU-1", Arch(7, 5), GIB),)), "535.104.05"),
        (LocalMachine("535.104.05", "12.2"), None),  # a driver without a card decides nothing
        (LocalMachine("r535 (beta)", "12.2", (LocalCard("a card", "GPU-1", Arch(7, 5), GIB),)), None),
        (LocalMachine(why="no NVIDIA driver"), None),
    ],
)
def test_the_driver_of_its_cards_where_it_is_known(machine: LocalMachine, driver: str | None) -> None:
    assert (str(machine.known_driver) if machine.known_driver else None) == driver
