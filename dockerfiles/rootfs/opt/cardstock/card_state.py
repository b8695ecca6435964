"""What keeps a card that fits from being used: its compute mode, its NVLink fabric, and words of CUDA_VISIBLE_DEVICES
that vLLM cannot read. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nvml import Seen  # type: ignore[import-not-found,unused-ignore]

# nvml.h, nvmlComputeMode_t and nvmlGpuFabricState_t.
EXCLUSIVE, PROHIBITED = (1, 3), 2
FABRIC = {1: "was not started", 2: "is not up yet"}
# vLLM takes each word for a number until then: `int(physical_device_id)` in vllm/platforms/cuda.py @v0.7.3 and
# @v0.8.5.post1, interface.py @v0.11.0 and @v0.19.1. Later it asks NVML for the card of a UUID, which must be whole:
# vllm/platforms/cuda.py @v0.33.0, vLLM issue 51677.
READS_UUIDS = (0, 32)
_WHOLE = re.compile(r"(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

Fault = tuple[str, str, list[str]]  # what, cause, what to do


def state_lines(cards: Sequence[Seen]) -> list[str]:
    """What may keep the server from starting, and what to do on the host; it is started all the same."""
    out = []
    for card in cards:
        if card.mode in EXCLUSIVE:
            out.append(
                f"card {card.index}, {card.name}: one process may use it (exclusive compute mode); {_default(card)}"
            )
        if card.fabric in FABRIC:
            told = f"card {card.index}, {card.name}: its NVLink fabric {FABRIC[card.fabric]}, and CUDA may end with 802"
            out.append(f"{told}, system not ready; on the host: sudo systemctl enable --now nvidia-fabricmanager")
    return out


def prohibited(cards: Sequence[Seen]) -> Fault | None:
    """A card that no process may use."""
    for card in cards:
        if card.mode == PROHIBITED:
            return (
                f"card {card.index}, {card.name}: no process may use it",
                "its compute mode is prohibited",
                [_default(card)],
            )
    return None


def _default(card: Seen) -> str:
    return f"on the host: sudo nvidia-smi -i {card.uuid or card.index} -c DEFAULT"


def unread_words(tag: str, cards: Sequence[Seen], environment: Mapping[str, str]) -> Fault | None:
    """Words of CUDA_VISIBLE_DEVICES on which the vLLM of image ``tag`` ends; ``cards`` are those that they leave."""
    version = re.search(r"vllm(\d+)\.(\d+)", tag)
    words = [word.strip() for word in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    named = [word for word in words if word[:4].upper() in ("GPU-", "MIG-")]
    if version is None or not named:
        return None
    whole = all(map(_WHOLE.fullmatch, named))
    if (int(version[1]), int(version[2])) < READS_UUIDS:
        cause = "its vLLM takes every word for a number (invalid literal for int())"
    elif whole:
        return None
    else:
        cause = "its vLLM asks the driver for the card of a UUID, and that takes whole ones only"
    what = f"{tag} does not start with CUDA_VISIBLE_DEVICES={','.join(words)}"
    return what, cause, _instead(named, cards, whole)


def _instead(named: Sequence[str], cards: Sequence[Seen], whole: bool) -> list[str]:
    part = named[0].upper().startswith("MIG-")
    given = ",".join(named if whole or part else [card.uuid for card in cards if card.uuid] or named)
    by_docker = f"""leave it out, and give the container these alone: --gpus '"device={given}"', or """
    by_docker += " ".join(f"--device nvidia.com/gpu={one}" for one in given.split(","))
    if part or not cards:
        return [by_docker]
    places = ",".join(str(card.index) for card in cards)
    return [f"by number: -e CUDA_DEVICE_ORDER=PCI_BUS_ID -e CUDA_VISIBLE_DEVICES={places}", by_docker]
