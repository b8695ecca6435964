"""The cards of a machine as NVML tells them, with a stand-in for the module pynvml."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from images.cards.this_machine import LocalCard, LocalMachine, MigInstance, read_machine
from images.matrix.arch import Arch
from tests.helpers.fake_nvml import FakeNvml

GIB = 2**30


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
        (pynvml.NVML_ERROR_UNKNOWN, "unknown error"),
        (pynvml.NVML_ERROR_TIMEOUT, "does not start"),
    ],
)
def test_a_machine_without_a_card_is_a_value(error: int, said: str) -> None:
    found = read_machine(FakeNvml(fails={"nvmlInit": error}))
    assert said in found.why
    assert found == LocalMachine(why=found.why, fault=found.fault)
    assert found.fault is not None and found.fault.code == error


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
        (LocalMachine("N/A", "12.2", (LocalCard("a card", "GPU-1", Arch(7, 5), GIB),)), None),
        (LocalMachine(why="no NVIDIA driver"), None),
    ],
)
def test_the_driver_of_its_cards_where_it_is_known(machine: LocalMachine, driver: str | None) -> None:
    assert (str(machine.known_driver) if machine.known_driver else None) == driver


EIGHT = [{**TURING, "uuid": f"GPU-{at}", "address": f"00000000:{at:02X}:00.0"} for at in range(16, 24)]


def on_bus(folder: Path, *addresses: str) -> Path:
    """A PCI bus with these cards of NVIDIA's."""
    for address in addresses:
        (folder / address).mkdir()
        (folder / address / "vendor").write_text("0x10de\n")
        (folder / address / "class").write_text("0x030200\n")
    return folder


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN])
def test_a_lost_card_of_eight_hides_none_of_the_others(tmp_path: Path, code: int) -> None:
    cards = [{"lost": code} if at == 3 else card for at, card in enumerate(EIGHT)]
    bus = on_bus(tmp_path, *(f"0000:{at:02x}:00.0" for at in range(16, 24)))
    found = read_machine(FakeNvml(*cards), bus=bus)
    assert [card.index for card in found.cards] == [0, 1, 2, 4, 5, 6, 7]
    assert (found.why, found.driver) == ("", "535.104.05")
    (lost,) = found.lost
    assert (lost.index, lost.address, lost.fault.code) == (3, "0000:13:00.0", code)
    assert "0000:13:00.0" in str(lost) and "restart" in lost.fault.do


def test_a_card_that_is_lost_while_it_is_asked_is_lost_too(tmp_path: Path) -> None:
    nvml = FakeNvml(EIGHT[0], fails={"nvmlDeviceGetCudaComputeCapability": pynvml.NVML_ERROR_GPU_IS_LOST})
    found = read_machine(nvml, bus=on_bus(tmp_path, "0000:10:00.0"))
    assert (found.cards, [one.address for one in found.lost]) == ((), ["0000:10:00.0"])
    assert "no card answers" in found.why and "0000:10:00.0" in found.why


def test_which_address_is_lost_is_told_only_where_it_is_certain(tmp_path: Path) -> None:
    bus = on_bus(tmp_path, "0000:10:00.0", "0000:11:00.0", "0000:12:00.0")  # one is another driver's
    found = read_machine(FakeNvml(EIGHT[0], {"lost": pynvml.NVML_ERROR_GPU_IS_LOST}), bus=bus)
    assert [one.address for one in found.lost] == [""]
    assert str(found.lost[0]).startswith("card 1: the card has fallen off the bus")


def test_a_card_that_must_be_reset_says_how(tmp_path: Path) -> None:
    found = read_machine(FakeNvml({"lost": pynvml.NVML_ERROR_RESET_REQUIRED}), bus=on_bus(tmp_path, "0000:10:00.0"))
    assert found.lost[0].fault.do.endswith("nvidia-smi --gpu-reset -i 0000:10:00.0")


def test_wsl_whose_windows_blocks_the_card_says_so(tmp_path: Path) -> None:
    blocked = FakeNvml(fails={"nvmlInit": pynvml.NVML_ERROR_OPERATING_SYSTEM})
    found = read_machine(blocked, wsl=tmp_path)
    assert "WSL2" in found.why and found.fault is not None and "wsl --update" in found.fault.do
    elsewhere = read_machine(blocked, wsl=tmp_path / "none")
    assert "blocks access" in elsewhere.why and "WSL" not in elsewhere.why


@pytest.mark.parametrize(
    ("fabric", "said"),
    [((0, 0), ""), ((1, 0), "not started"), ((2, 0), "not up"), ((3, 0), ""), ((3, 999), "error 999")],
)
def test_the_fabric_of_boards_with_nvswitches(fabric: tuple[int, int], said: str) -> None:
    (card,) = read_machine(FakeNvml({**A100, "fabric": fabric})).cards
    assert (card.fabric == "") == (said == "") and said in card.fabric


def test_the_compute_mode_is_told_where_it_is_not_cudas_own() -> None:
    modes = [read_machine(FakeNvml({**A100, "mode": mode})).cards[0].compute_mode for mode in range(4)]
    assert modes == ["", "exclusive thread", "prohibited", "exclusive process"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("550.54.14", "550.54.14"),
        ("550.54", "550.54"),
        ("NVIDIA UNIX x86_64 Kernel Module 550", "550"),
        ("NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 09:35:42 UTC 2024", "550.90.07"),
        ("R570", "570"),
        ("v580.65.06", "580.65.06"),
        ("550.54.14-grid", "550.54.14"),
        ("N/A", None),
        ("", None),
        ("[Unknown Error]", None),
    ],
)
def test_a_drivers_version_is_read_in_what_there_is(text: str, read: str | None) -> None:
    nvml = FakeNvml(TURING)
    nvml.driver = text
    found = read_machine(nvml).known_driver
    assert (str(found) if found else None) == read
