"""What an engine says when it cannot give a container a card, and what to do about it. Pure."""

from __future__ import annotations

import re

_DOCTOR = "./inv doctor says what is missing"
_RENEW = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
# The first whose pattern the engine's words match: moby, nvidia-container-cli, runc and CDI each have their own.
_KNOWN = (
    (r"BPF_CGROUP_DEVICE|cgroup subsystem devices not found|bpf_prog_query",
     "the engine may not set up cgroups: sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups=true --in-place, "
     "or give the cards by CDI"),
    (r"unresolvable CDI", f"no CDI specification names this card: {_RENEW}, then docker info lists it"),
    (r"(?s)(CDI|nvidia).*(no such file or directory|fulfil mount request)",
     f"the CDI specification is older than the driver: {_RENEW}"),
    (r"(?i:driver/library version mismatch)",
     "the driver was updated and not loaded anew: restart the machine"),
    (r"driver not loaded|nvidia-container-cli.*load library failed.*libnvidia-ml",
     "no driver answers on the engine's machine: nvidia-smi there; sudo modprobe nvidia"),
    (r"unknown device", "the engine's machine has no such card: nvidia-smi -L there lists them"),
    (r"nvidia-container-cli.*(GPU is lost|(?i:unknown error))",
     "a card of the engine's machine does not answer: name the others with --gpus device=…"),
    (r"unsatisfied condition: cuda|please update your driver",
     "the driver of the engine's machine is too old for the image: ./inv cards --driver VERSION"),
    (r"could not select device driver|nvidia-container|unknown or invalid runtime name: nvidia|cdi-device-injection",
     "install the NVIDIA container toolkit, or let the engine read CDI"),
)  # fmt: skip


def no_card_given(said: str) -> str:
    """What to do where the engine's words are about cards; "" where they are about something else."""
    for pattern, do in _KNOWN:
        if re.search(pattern, said):
            return f"{do}; {_DOCTOR}"
    return ""
