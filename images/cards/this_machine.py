"""The cards of this machine, as NVML reports them; the only module that asks it."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from images.cards.data import Card
from images.core import UsageError
from images.matrix import Arch, Driver, parse_driver


@dataclass(frozen=True)
class MigInstance:
    """A MIG instance: its name ("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), UUID and bytes of memory."""

    name: str
    uuid: str
    memory: int


@dataclass(frozen=True)
class LocalCard:
    """A card in this machine. ``memory`` in bytes; ``slices`` are its MIG instances where ``mig`` is on."""

    name: str
    uuid: str
    arch: Arch
    memory: int
    mig: bool = False
    slices: tuple[MigInstance, ...] = ()


@dataclass(frozen=True)
class LocalMachine:
    """The driver and cards of this machine. Without a card ``why`` says so, and ``driver`` may be "" too.

    ``cuda`` is the newest CUDA version that the driver brings, such as "12.4"; ``host`` is "arm64" beside an Arm CPU.
    """

    driver: str = ""
    cuda: str = ""
    cards: tuple[LocalCard, ...] = ()
    why: str = ""
    host: str = ""

    @property
    def known_driver(self) -> Driver | None:
        """The driver of its cards; None without a card, or where the driver's version is of no known form."""
        try:
            return parse_driver(self.driver) if self.cards else None
        except UsageError:
            return None

    def as_cards(self) -> tuple[Card, ...]:
        """Its cards as any others, memory in whole GB; of one that is cut by MIG the largest slice counts."""
        return tuple(
            Card(local.name, local.arch, _gigabytes(local), "NVML on this machine", self.host) for local in self.cards
        )


def read_machine(module: Any = None) -> LocalMachine:
    """Ask NVML. A machine without a card, driver or library is a value too: nothing is raised.

    ``module`` stands in for pynvml.
    """
    nvml = module or importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return LocalMachine(why=_why(nvml, error))
    try:
        return _read(nvml)
    except nvml.NVMLError as error:
        return LocalMachine(why=f"NVML failed: {error}")
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any) -> LocalMachine:
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    number = int(_or(nvml, nvml.nvmlSystemGetCudaDriverVersion, 0))
    cuda = f"{number // 1000}.{number % 1000 // 10}" if number else ""
    cards = tuple(_card(nvml, nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(nvml.nvmlDeviceGetCount()))
    host = "arm64" if platform.machine() in ("aarch64", "arm64") else ""
    return LocalMachine(driver, cuda, cards, "" if cards else "the driver sees no card", host)


def _gigabytes(local: LocalCard) -> float:
    """As on the box: in binary units a card reports a little less than its name says."""
    return round(max((part.memory for part in local.slices), default=local.memory) / 2**30)


def _card(nvml: Any, handle: Any) -> LocalCard:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    mig = _or(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0], 0) == 1
    return LocalCard(
        _text(nvml.nvmlDeviceGetName(handle)),
        _text(nvml.nvmlDeviceGetUUID(handle)),
        Arch(int(major), int(minor)),
        _memory(nvml, handle),
        mig,
        tuple(_slices(nvml, handle)) if mig else (),
    )


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


def _why(nvml: Any, error: Exception) -> str:
    reasons = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver: libnvidia-ml.so.1 is not there",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded",
        nvml.NVML_ERROR_NO_PERMISSION: "no permission to ask the NVIDIA driver",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver was updated but not loaded anew: restart",
    }
    return reasons.get(getattr(error, "value", None), f"NVML does not start: {error}")


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
