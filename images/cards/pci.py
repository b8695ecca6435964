"""NVIDIA's devices on the PCI bus, as Linux lists them: with or without a driver, and lost ones too."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

BUS = Path("/sys/bus/pci/devices")
# Classes of PCI devices: a display controller is a card, a bridge of its own kind an NVSwitch.
CARDS, SWITCHES = "0x03", "0x0680"
_NVIDIA = "0x10de"


def addresses(kind: str = CARDS, bus: Path = BUS) -> tuple[str, ...]:
    """PCI addresses ("0000:3b:00.0") of NVIDIA's devices of a class, in their order; none where none can be seen."""
    found = []
    for device in sorted(bus.iterdir()) if bus.is_dir() else ():
        with suppress(OSError):
            vendor, own = ((device / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
            if vendor == _NVIDIA and own.startswith(kind):
                found.append(device.name)
    return tuple(found)


def plain(address: str) -> str:
    """NVML's "00000000:3B:00.0" as Linux writes it, "0000:3b:00.0"."""
    domain, colon, rest = address.lower().partition(":")
    return f"{domain[-4:]}{colon}{rest}"
