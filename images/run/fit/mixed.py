"""Cards of several generations, and parts of a card: what vLLM would take for granted there. Pure.

vLLM's processes ask the first card for its capability (vllm/platforms/cuda.py get_device_capability, device_id=0), and
take kernels by it that the others may not have. What is named is not asked: override_quantization_method of
vllm/model_executor/layers/quantization/awq_marlin.py and gptq_marlin.py leaves the plain kernel where it is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from packaging.version import Version

from images.cards import AskedCards
from images.core import NoImageFits
from images.matrix import Variant
from images.run.fit.backends import CardBackend, Setting, backend_for
from images.run.fit.model import Model

# CUDA's own order is the fastest first, NVML's and nvidia-smi's that of the PCI bus.
ORDER = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
_PLAIN = ("awq", "gptq")
_SOURCE = "vllm/platforms/cuda.py, vllm/model_executor/layers/quantization/awq_marlin.py"
# What `backends` says of a kernel that vLLM picks, and what is so where it must not pick.
_LEFT_TO_VLLM = "so vLLM takes the plain kernel: give no --quantization"
_NAMED = "so the plain kernel is named, which runs on every card"
_ENCODER_FLAG = Version("0.15")


def check_instances(on: AskedCards, nodes: int) -> None:
    """Raises NoImageFits for several MIG instances: they do not talk to each other as whole cards do."""
    if on.count * nodes < 2 or not any(card.mig for card in on.cards):
        return
    first = on.devices[0] if on.devices else "MIG-…"
    raise NoImageFits(
        f"{on.text} are several MIG instances for one server",
        cause="a program sees one MIG instance at a time, and instances do not reach each other's memory",
        do=f"one server for each: --gpus device={first}; or whole cards, with MIG off: nvidia-smi -mig 0",
        where="NVIDIA's MIG user guide (what one CUDA process sees)",
    )


def backend_for_all(model: Model, variant: Variant, on: AskedCards) -> CardBackend:
    """How ``variant`` serves ``model`` on these cards together: as the oldest does, and said where vLLM would ask.

    Raises NoImageFits where it cannot on one of them.
    """
    oldest, *newer = (backend_for(model, variant, arch) for arch in on.archs)
    if not on.mixed:
        return oldest
    environment = dict([ORDER])
    flags: list[str] = []
    if oldest.vllm:
        flags = [*_named_kernel(oldest, newer), *_named_vision(oldest, newer)]
        if oldest.kernel not in _PLAIN and any(one.kernel != oldest.kernel for one in newer):
            environment |= _oldest_first(on)
        if any(one.chunked != oldest.chunked for one in newer):
            environment["VLLM_USE_V1"] = "0"
    choice = _choice(on, oldest, flags, environment)
    choices = [replace(one, why=one.why.replace(_LEFT_TO_VLLM, _NAMED)) if flags else one for one in oldest.choices]
    return replace(
        oldest,
        flags=(*oldest.flags, *flags),
        environment=tuple(environment.items()),
        choices=(*choices, choice),
    )


def _named_kernel(oldest: CardBackend, newer: Sequence[CardBackend]) -> Iterator[str]:
    if oldest.kernel in _PLAIN and any(one.kernel != oldest.kernel for one in newer):
        yield from ("--quantization", oldest.kernel)


def _named_vision(oldest: CardBackend, newer: Sequence[CardBackend]) -> Iterator[str]:
    named = "--mm-encoder-attn-backend" in oldest.flags
    if not named and oldest.version >= _ENCODER_FLAG and any(_vision(one) != _vision(oldest) for one in newer):
        yield from ("--mm-encoder-attn-backend", _vision(oldest))


def _vision(backend: CardBackend) -> str:
    return next(one.value for one in backend.choices if one.name == "vision attention")


def _oldest_first(on: AskedCards) -> dict[str, str]:
    """The order of the devices in the container, by their places on the PCI bus, so that the oldest is asked."""
    places = sorted(range(on.count), key=lambda at: on.cards[at].arch)
    return {} if places == sorted(places) else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, places))}


def _choice(on: AskedCards, oldest: CardBackend, flags: Sequence[str], environment: dict[str, str]) -> Setting:
    said = [" ".join(flags)] if flags else []
    said += [f"{name}={value}" for name, value in environment.items()]
    first = on.cards[0].name
    why = f"every card does what the oldest can ({oldest.arch})"
    if oldest.vllm:
        why = f"vLLM asks card 0 alone, {first}, what it can; so what runs on {oldest.arch} as well is named"
        if "CUDA_VISIBLE_DEVICES" in environment:
            why = f"vLLM asks the first card alone what it can; so the oldest ({oldest.arch}) is put before {first}"
    return Setting("several kinds of cards", ", ".join(said), why, _SOURCE)
