"""What NVML's errors mean to a person, and what to do about them. Pure.

Codes: nvmlReturn_t of nvml.h. 17 in WSL2: microsoft/WSL issues 9938, 9962 and 10289; 999 after a daemon-reload:
NVIDIA/nvidia-container-toolkit issue 251.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_PERMISSION, NOT_LOADED, LIBRARY_NOT_FOUND, LOST, RESET_REQUIRED = 4, 9, 12, 15, 16
OPERATING_SYSTEM, MISMATCH, UNKNOWN = 17, 18, 999
# After these there may well be no card at all; after every other one a card is there and does not answer.
NO_DRIVER = (NOT_LOADED, LIBRARY_NOT_FOUND)


@dataclass(frozen=True)
class NvmlFault:
    """Why NVML, or one card, does not answer; ``do`` is "" where nothing can be said."""

    code: int
    what: str
    do: str = ""


_RESTART = "restart the machine; where the same card is lost again, look for Xid in dmesg, and at its power and seat"
NVML_FAULTS = {
    NO_PERMISSION: NvmlFault(
        NO_PERMISSION,
        "no permission to ask the NVIDIA driver",
        "look at the device files (ls -l /dev/nvidia*): this user needs read and write on them, by their group (usermod"
        " -aG video USER, then log in anew) or as root; in a container, start it with its cards again",
    ),
    NOT_LOADED: NvmlFault(
        NOT_LOADED,
        "the NVIDIA driver is installed but not loaded",
        "sudo modprobe nvidia says why (Secure Boot, a new kernel without its module: dkms status); then nvidia-smi",
    ),
    LIBRARY_NOT_FOUND: NvmlFault(LIBRARY_NOT_FOUND, "no NVIDIA driver: libnvidia-ml.so.1 is not there"),
    LOST: NvmlFault(LOST, "the card has fallen off the bus", _RESTART),
    RESET_REQUIRED: NvmlFault(
        RESET_REQUIRED, "the card must be reset", "stop what uses it, then sudo nvidia-smi --gpu-reset -i ADDRESS"
    ),
    OPERATING_SYSTEM: NvmlFault(
        OPERATING_SYSTEM,
        "the operating system blocks access to the card",
        "in a container, start it anew with its cards (a cgroup took the device files away); else see dmesg",
    ),
    MISMATCH: NvmlFault(
        MISMATCH,
        "the NVIDIA driver was updated but not loaded anew: restart",
        "restart the machine (or unload and load the nvidia modules)",
    ),
    UNKNOWN: NvmlFault(
        UNKNOWN,
        "the driver does not say what is wrong (unknown error)",
        "in a container, start it anew: systemctl daemon-reload on the host takes the device files away (to keep them, "
        '"exec-opts": ["native.cgroupdriver=cgroupfs"] in daemon.json, or CDI); else look for NVRM and Xid in dmesg, '
        "and restart the machine",
    ),
}
NVML_WSL = NvmlFault(
    OPERATING_SYSTEM,
    "Windows does not give its card to WSL2",
    "remove any NVIDIA driver that was installed in WSL (the right libraries are in /usr/lib/wsl/lib), install the "
    "newest driver in Windows, then wsl --update and wsl --shutdown in PowerShell",
)


def explain(code: int, *, wsl: bool = False) -> NvmlFault:
    """The fault of a code; ``wsl``: this is WSL2, where the driver is Windows' own."""
    if wsl and code == OPERATING_SYSTEM:
        return NVML_WSL
    return NVML_FAULTS.get(
        code, NvmlFault(code, f"NVML does not start (error {code})", "see what nvidia-smi says, and dmesg")
    )


def explain_card(code: int, address: str) -> NvmlFault:
    """The fault of one card that does not answer, at its PCI ``address``."""
    if code == UNKNOWN:
        return NvmlFault(code, "the card answers with an unknown error", _RESTART)
    found = NVML_FAULTS.get(code, NvmlFault(code, f"the card answers with error {code}", _RESTART))
    return NvmlFault(code, found.what, found.do.replace("ADDRESS", address or "NUMBER"))
