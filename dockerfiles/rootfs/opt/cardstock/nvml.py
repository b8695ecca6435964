"""The cards and the driver that this container sees, from NVIDIA's management library. Standard library only."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
# Device files of a driver on Linux, and below Windows' Linux: a card may be there without the management library.
DEVICES = ("/dev/nvidiactl", "/dev/dxg")
# NVML_SUCCESS, and those return codes after which CUDA finds no card either (nvml.h, nvmlReturn_t).
SUCCESS, NO_PERMISSION, NOT_LOADED, LOST, BLOCKED, MISMATCH, UNKNOWN = 0, 4, 9, 15, 17, 18, 999
# What they mean to a person, and what to do about them.
BROKEN = {
    NOT_LOADED: ("the NVIDIA driver is installed but not loaded", "on the host: nvidia-smi, and modprobe nvidia"),
    MISMATCH: (
        "the driver's library and its kernel module are of two versions: it was updated, and not loaded anew",
        "restart the host (or unload and load the nvidia modules), then this container",
    ),
}
# Errors after which CUDA may find a card all the same: told, and the server starts.
DOUBTFUL = {
    NO_PERMISSION: "this container's user may not open the driver's device files: give it their group, docker run "
    "--group-add $(stat -c %g /dev/nvidiactl)",
    BLOCKED: "the operating system blocks the card; in WSL2 update Windows' driver, wsl --update, wsl --shutdown; "
    "elsewhere start the container anew with its cards",
    UNKNOWN: "unknown error, as after systemctl daemon-reload on the host, which takes cards from containers: "
    "start this one anew; if it stays, look for NVRM and Xid in the host's dmesg",
    LOST: "it has fallen off the bus: on the host nvidia-smi and dmesg (Xid), and a restart",
}
_TEXT = 128  # bytes: more than any name, UUID or version that NVML gives


@dataclass(frozen=True)
class Seen:
    """A card: its place in NVML's order (that of the PCI bus), product name, UUID, compute capability.

    ``mode`` and ``fabric`` are nvml.h's compute mode and state of the NVLink fabric (card_state.py); 0 is all right.
    """

    index: int
    name: str
    uuid: str
    capability: tuple[int, int]
    mode: int = 0
    fabric: int = 0


class Fabric(ctypes.Structure):
    """nvml.h: nvmlGpuFabricInfo_t."""

    _fields_ = (
        ("cluster", ctypes.c_char * 16),
        ("status", ctypes.c_uint),
        ("clique", ctypes.c_uint32),
        ("state", ctypes.c_uint8),
    )


@dataclass(frozen=True)
class Machine:
    """What NVML tells. ``cuda`` is the CUDA version that the driver brings, such as (12, 4), or None if not told.

    ``why`` says why there is no card, and ``do`` what to do about it; ``unsure`` are answers that were not understood.
    """

    driver: str = ""
    cuda: tuple[int, int] | None = None
    cards: tuple[Seen, ...] = ()
    why: str = ""
    do: str = ""
    unsure: tuple[str, ...] = ()


def read_machine(load: Callable[[str], Any] = ctypes.CDLL, devices: tuple[str, ...] = DEVICES) -> Machine:
    """Ask NVML. No card, no driver and a broken library are values too: nothing is raised for them."""
    try:
        library = load(LIBRARY)
    except OSError as error:
        if any(Path(device).exists() for device in devices):
            # As with NVIDIA_DRIVER_CAPABILITIES=compute: CUDA is there, and what would tell of it is not.
            return Machine(unsure=(f"{LIBRARY} cannot be loaded though a driver is there: {error}",))
        return Machine(why=f"no NVIDIA driver reaches this container ({LIBRARY} is not there)")
    code = _init(library)
    if code in BROKEN:
        why, do = BROKEN[code]
        return Machine(why=f"{why} (NVML error {code})", do=do)
    if code != SUCCESS:
        known = f" ({DOUBTFUL[code]})" if code in DOUBTFUL else ""
        return Machine(unsure=(f"NVML does not start: error {code}{known}",))
    return _read(library)


def _init(library: Any) -> int:
    # Flag 1: start even if no card is attached, which then is a count of 0 instead of an error.
    return int(library.nvmlInitWithFlags(ctypes.c_uint(1)))


def _read(library: Any) -> Machine:
    unsure: list[str] = []
    driver = _text(library.nvmlSystemGetDriverVersion) or ""
    number = _number(library.nvmlSystemGetCudaDriverVersion) or 0
    count = _number(library.nvmlDeviceGetCount_v2)
    if count is None:
        return Machine(driver, unsure=("NVML does not tell how many cards there are",))
    cards = []
    for index in range(count):
        card = _card(library, index)
        if isinstance(card, Seen):
            cards.append(card)
        else:
            known = f" ({DOUBTFUL[card]})" if card in DOUBTFUL else ""
            unsure.append(f"card {index} does not answer: NVML error {card}{known}")
    why = "" if count else "the driver is there, and shows no card to this container"
    return Machine(driver, divmod(number // 10, 100) if number else None, tuple(cards), why, unsure=tuple(unsure))


def _card(library: Any, index: int) -> Seen | int:
    """A card, or the code of the error that it answers with."""
    handle, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    code = int(library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)))
    code = code or int(library.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)))
    if code:
        return code
    name = _text(library.nvmlDeviceGetName, handle) or "NVIDIA card"
    uuid = _text(library.nvmlDeviceGetUUID, handle) or ""
    return Seen(index, name, uuid, (major.value, minor.value), *_state(library, handle))


def _state(library: Any, handle: Any) -> tuple[int, int]:
    """Compute mode and state of the NVLink fabric; 0 where this driver has no such function."""
    mode, fabric = ctypes.c_int(), Fabric()
    for name, place in (("nvmlDeviceGetComputeMode", mode), ("nvmlDeviceGetGpuFabricInfo", fabric)):
        ask = getattr(library, name, None)
        if ask is not None:
            ask(handle, ctypes.byref(place))
    return mode.value, fabric.state


def _text(function: Any, *before: Any) -> str | None:
    """The text that a function of NVML writes; None where it fails."""
    buffer = ctypes.create_string_buffer(_TEXT)
    if int(function(*before, buffer, ctypes.c_uint(_TEXT))):
        return None
    return buffer.value.decode("utf-8", "replace").strip()


def _number(function: Any) -> int | None:
    """The number that a function of NVML writes; None where it fails."""
    number = ctypes.c_int()
    return None if int(function(ctypes.byref(number))) else number.value


def visible(cards: tuple[Seen, ...], environment: Mapping[str, str]) -> tuple[tuple[Seen, ...], bool]:
    """The cards that CUDA_VISIBLE_DEVICES leaves of those that NVML shows, and whether that is certain.

    A list ends at the first word that names no card, as CUDA reads it. Numbers are CUDA's own, fastest card first,
    unless CUDA_DEVICE_ORDER=PCI_BUS_ID: where the cards differ they do not say which one is meant.
    """
    words = environment.get("CUDA_VISIBLE_DEVICES")
    if words is None:
        return cards, True
    if words.strip().startswith("MIG-"):
        return cards, True  # a slice of one of them
    chosen: list[Seen] = []
    numbered = False
    for word in (word.strip() for word in words.split(",")):
        if word.isdecimal():
            numbered = True
            match = [card for card in cards if card.index == int(word)]
        else:
            match = [card for card in cards if word and card.uuid.startswith(word)]
        if len(match) != 1 or match[0] in chosen:
            break
        chosen += match
    alike = len({card.capability for card in cards}) < 2 or len(chosen) == len(cards)
    certain = alike or not numbered or environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    return tuple(chosen), certain
