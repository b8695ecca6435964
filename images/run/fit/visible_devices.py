"""CUDA_VISIBLE_DEVICES as the servers read it: which vLLM ends on a UUID in it, and what to set instead. Pure.

vLLM takes each word for a number until 0.31: `int(physical_device_id)` in vllm/platforms/cuda.py @v0.7.3 and
@v0.8.5.post1, interface.py @v0.11.0 and @v0.19.1. Later it asks NVML for the card of a whole UUID: cuda.py @v0.33.0;
one that is cut short ends it still (vLLM issue 51677). Preflight says the same (dockerfiles/rootfs/opt/cardstock).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.version import Version

from images.core import UsageError
from images.matrix import Variant

VARIABLE = "CUDA_VISIBLE_DEVICES"
READS_UUIDS = (0, 32)
_WHOLE = re.compile(r"(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def unread_uuids(variant: Variant, value: str) -> list[str]:
    """The words of ``value`` on which this image's server ends; none for the server on transformers."""
    pin = variant.pin("vllm")
    named = [word for word in map(str.strip, value.split(",")) if word[:4].upper() in ("GPU-", "MIG-")]
    if pin is None or variant.backend != "vllm":
        return []
    if Version(pin.version).release[:2] < READS_UUIDS:
        return named
    return [word for word in named if not _WHOLE.fullmatch(word)]


def check_visible(variant: Variant, environment: Mapping[str, str], where: str = "") -> None:
    """Raises UsageError where the variables that a container is given would end its server."""
    if words := unread_uuids(variant, environment.get(VARIABLE, "")):
        raise UsageError(
            f"{variant.id} does not start with {VARIABLE}={environment[VARIABLE]}",
            cause=f"its vLLM cannot read {words[0]}",
            do=f"leave {VARIABLE} out, and name the cards: {by_gpus(words)}",
            where=where,
        )


def by_gpus(words: list[str]) -> str:
    """The same cards as `invoke serve` is told them."""
    return f"--gpus device={','.join(words)}"


def shell_note(variant: Variant, environment: Mapping[str, str]) -> str:
    """What the variable of whoever asks does, and does not, for a container; "" where it is not set."""
    value = environment.get(VARIABLE, "").strip()
    if not value:
        return ""
    words = [word.strip() for word in value.split(",")]
    note = (
        f"{VARIABLE}={value} of this shell is not passed to the container: ./inv serve {by_gpus(words)} gives it those"
    )
    unread = unread_uuids(variant, value)
    return f"{note} (passed by --env, {unread[0]} would end its vLLM)" if unread else note
