"""The cards of this machine, as NVML reports them; the only module that asks it.

Cards are asked one by one: one that has fallen off the bus is named, and the others stay usable.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from images.cards import pci
from images.cards.data import Card, plain_name
from images.cards.nvml_errors import NvmlFault, explain, explain_card
from images.matrix import Arch, Driver, parse_driver

# In WSL2 the card is behind this device, and no PCI bus shows it.
WSL = Path("/dev/dxg")
# nvml.h: nvmlComputeMode_t; CUDA's own default is 0.
COMPUTE_MODES = {1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
_DRIVER = re.compile(r"(?<![\d.])(\d{3}(?:\.\d{1,3}){0,2})(?!\d)")
# nvml.h: nvmlGpuFabricState_t.
_FABRIC_NOT_STARTED, _FABRIC_IN_PROGRESS, _FABRIC_COMPLETED = 1, 2, 3


@dataclass(frozen=True)
class MigInstance:
    """A MIG instance: its name ("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), UUID and bytes of memory."""

    name: str
    uuid: str
    memory: int


@dataclass(frozen=True)
class LocalCard:
    """A card in this machine. ``memory`` in bytes; ``slices`` are its MIG instances where ``mig`` is on.

    ``index`` is its place in NVML's order, which a lost card before it does not move; ``compute_mode`` "" where several
    processes may use it; ``fabric`` says what its NVLink fabric waits for, "" where it has none or it is up.
    """

    name: str
    uuid: str
    arch: Arch
    memory: int
    mig: bool = False
    slices: tuple[MigInstance, ...] = ()
    index: int | None = None
    compute_mode: str = ""
    fabric: str = ""


@dataclass(frozen=True)
class LostCard:
    """A card that does not answer: its place in NVML's order, its PCI address ("" if not known), and why."""

    index: int
    address: str
    fault: NvmlFault

    def __str__(self) -> str:
        where = f" at PCI {self.address}" if self.address else ""
        return f"card {self.index}{where}: {self.fault.what} (NVML error {self.fault.code})"


@dataclass(frozen=True)
class LocalMachine:
    """The driver and cards of this machine. Without a card ``why`` says so, and ``driver`` may be "" too.

    ``cuda`` is the newest CUDA version that the driver brings, such as "12.4"; ``host`` is "arm64" beside an Arm CPU.
    ``lost`` are cards that do not answer; ``fault`` is that of a driver that does not.
    """

    driver: str = ""
    cuda: str = ""
    cards: tuple[LocalCard, ...] = ()
    why: str = ""
    host: str = ""
    lost: tuple[LostCard, ...] = ()
    fault: NvmlFault | None = None

    @property
    def known_driver(self) -> Driver | None:
        """The driver of its cards; None without a card, or where the driver's version is of no known form."""
        return read_driver(self.driver) if self.cards else None

    @property
    def do(self) -> str:
        """What makes a driver or a card answer that does not; "" where nothing is wrong, or nothing can be said."""
        return self.fault.do if self.fault else next((one.fault.do for one in self.lost), "")

    def as_cards(self) -> tuple[Card, ...]:
        """Its cards as any others, memory in whole GB; of one that is cut by MIG the largest slice counts."""
        return tuple(_as_card(local, self.host) for local in self.cards)


def read_driver(text: str) -> Driver | None:
    """A driver's version as NVML and /proc write it ("550.54.14", "R570", "… Kernel Module  550.54.14"); None if none
    can be read in it.
    """
    found = _DRIVER.search(text)
    return parse_driver(found[1]) if found else None


def card_called(name: str, machine: LocalMachine) -> Card | None:
    """The card of this machine that NVML calls so, its capability as NVML tells it; None where it has none."""
    same = [card for card in machine.cards if plain_name(card.name) == plain_name(name)]
    return _as_card(same[0], machine.host) if same else None


def read_machine(module: Any = None, *, bus: Path = pci.BUS, wsl: Path = WSL) -> LocalMachine:
    """Ask NVML. A machine without a card, driver or library is a value too: nothing is raised.

    ``module`` stands in for pynvml; ``bus`` lists PCI devices, so that a lost card has an address.
    """
    nvml = module or importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        fault = explain(_code(error), wsl=wsl.exists())
        return LocalMachine(why=fault.what, fault=fault)
    try:
        return _read(nvml, bus)
    except nvml.NVMLError as error:
        fault = explain(_code(error), wsl=wsl.exists())
        return LocalMachine(why=f"NVML failed: {error}", fault=NvmlFault(fault.code, f"NVML failed: {error}", fault.do))
    finally:
        _or(nvml, nvml.nvmlShutdown, None)


def _read(nvml: Any, bus: Path) -> LocalMachine:
    driver = _text(_or(nvml, nvml.nvmlSystemGetDriverVersion, ""))
    number = int(_or(nvml, nvml.nvmlSystemGetCudaDriverVersion, 0))
    cuda = f"{number // 1000}.{number % 1000 // 10}" if number else ""
    cards: list[LocalCard] = []
    codes: dict[int, int] = {}
    there: set[str] = set()
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = None
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            cards.append(_card(nvml, handle, index))
            there.add(_address(nvml, handle))
        except nvml.NVMLError as error:
            codes[index] = _code(error)
    lost = _lost(codes, [one for one in pci.addresses(bus=bus) if one not in there] if codes else [])
    host = "arm64" if platform.machine() in ("aarch64", "arm64") else ""
    why = "" if cards else "no card answers: " + "; ".join(map(str, lost)) if lost else "the driver sees no card"
    return LocalMachine(driver, cuda, tuple(cards), "" if cards else why, host, lost)


def _lost(codes: dict[int, int], silent: list[str]) -> tuple[LostCard, ...]:
    """The cards that gave an error. ``silent`` are the bus's addresses that no card answered for, in NVML's order too;
    where they are another number, which is whose is not known.
    """
    places = silent if len(silent) == len(codes) else [""] * len(codes)
    return tuple(
        LostCard(index, at, explain_card(code, at)) for (index, code), at in zip(codes.items(), places, strict=True)
    )


def _code(error: Exception) -> int:
    return int(getattr(error, "value", 0) or 0)


def _address(nvml: Any, handle: Any) -> str:
    found = _or(nvml, lambda: nvml.nvmlDeviceGetPciInfo(handle).busId, "")
    return pci.plain(_text(found))


def _as_card(local: LocalCard, host: str) -> Card:
    return Card(local.name, local.arch, _gigabytes(local), "NVML on this machine", host)


def _gigabytes(local: LocalCard) -> float:
    """As on the box: in binary units a card reports a little less than its name says."""
    return round(max((part.memory for part in local.slices), default=local.memory) / 2**30)


def _card(nvml: Any, handle: Any, index: int) -> LocalCard:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    mig = _or(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0], 0) == 1
    return LocalCard(
        _text(nvml.nvmlDeviceGetName(handle)),
        _text(nvml.nvmlDeviceGetUUID(handle)),
        Arch(int(major), int(minor)),
        _memory(nvml, handle),
        mig,
        tuple(_slices(nvml, handle)) if mig else (),
        index,
        COMPUTE_MODES.get(int(_or(nvml, lambda: nvml.nvmlDeviceGetComputeMode(handle), 0)), ""),
        _fabric(nvml, handle),
    )


def _fabric(nvml: Any, handle: Any) -> str:
    """What the NVLink fabric of a card waits for. Until it is up, CUDA does not start: error 802, system not ready."""

    def ask() -> tuple[int, int]:
        info = nvml.c_nvmlGpuFabricInfo_t()
        nvml.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(info))
        return int(info.state), int(info.status)

    state, status = _or(nvml, ask, (0, 0))
    told = {_FABRIC_NOT_STARTED: "it was not started", _FABRIC_IN_PROGRESS: "it is not up yet"}
    if state == _FABRIC_COMPLETED and status:
        return f"it failed with error {status}"
    return told.get(state, "")


def _slices(nvml: Any, handle: Any) -> list[MigInstance]:
    slices = []
    for index in range(int(_or(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle), 0))):
        part = _or(nvml, partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index), None)
        if part is not None:  # None: no instance at this place
            name, uuid = _text(nvml.nvmlDeviceGetName(part)), _text(nvml.nvmlDeviceGetUUID(part))
            slices.append(MigInstance(name, uuid, _memory(nvml, part)))
    return slices


def _memory(nvml: Any, handle: Any) -> int:
    """Bytes; 0 where the card has none of its own (GB10, Jetson)."""
    return int(_or(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total, 0))


def _or(nvml: Any, ask: Callable[[], Any], instead: Any) -> Any:
    """What is asked, or ``instead`` where this driver or card cannot tell."""
    try:
        return ask()
    except nvml.NVMLError:
        return instead


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
