"""From a fit, an image and a model's place to the container that serves it. Pure."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.core import NoImageFits, UsageError, human_bytes
from images.docker import (
    NO_CARDS,
    RESTART,
    ContainerSpec,
    Gpus,
    Mount,
    PublishedPort,
    check_name,
    check_port,
)
from images.matrix import Variant
from images.render import CACHE, MODELS, PORT
from images.run.fit import (
    GIB,
    Fit,
    MemoryLine,
    Model,
    cpu_memory,
    environment,
    host_memory,
    kv_bytes,
    memory_limit,
    server_flags,
    shm_gigabytes,
    stage_weights,
    vision_weights,
)
from images.run.serve.opened import NOTHING, Opened, memory_of, video_flag
from images.run.serve.source import Source

CACHE_VOLUME = "cardstock-cache"
# Labels of every container that `invoke serve` starts: the variant's id, and what the API calls the model.
SERVED = "dev.cardstock.serve"
MODEL = "dev.cardstock.model"
# How this machine reaches a hub is passed on to a container that fetches from one.
HUB_SETTINGS = ("HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
# Where the image's preflight says that the image that would fit is.
REPOSITORY = "CARDSTOCK_REPOSITORY"
# Where each engine looks for the key that its clients must send.
API_KEYS = {"vllm": "VLLM_API_KEY", "transformers": "CARDSTOCK_API_KEY"}
# The serve command's own to set: another value would take the server away from its port, its model or its health check.
_OURS = {"--port": "--port", "--host": "--host", "--model": "--model", "--served-model-name": "--served-model-name"}
# On a CPU a conversation of this length takes minutes already.
CPU_LENGTH = 8192
# The image's own VLLM_CPU_KVCACHE_SPACE, in GiB.
_CPU_CACHE = 1
_CPU_SHM = 2


@dataclass(frozen=True)
class Options:
    """What was asked for beside image and model. ``gpus`` None: the fit's cards; ``flags`` win over the fit's.

    ``served`` is another name for the model; ``cache`` a volume or a folder for what is fetched and compiled;
    ``environment`` is that of whoever starts it. ``memory`` "": what the host needs by `fit`'s sum; ``video`` is for an
    image that uses no card, the fit has its own.
    """

    name: str = "cardstock"
    host: str = "127.0.0.1"
    port: int = PORT
    gpus: Gpus | None = None
    restart: str = "always"
    served: str = ""
    cache: str = CACHE_VOLUME
    flags: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    memory: str = ""
    video: int = 0
    opened: Opened = NOTHING


def make_spec(
    variant: Variant, image: str, source: Source, model: Model, found: Fit | None, how: Options
) -> ContainerSpec:
    """The container. ``found`` is None for an image that uses no card.

    Raises UsageError for options that cannot be, NoImageFits for several machines.
    """
    if how.restart not in RESTART:
        raise UsageError(f"there is no restart policy {how.restart!r}", do=f"one of {', '.join(RESTART)}")
    if found is not None and found.ask.nodes > 1:
        raise NoImageFits(
            f"{found.ask.cards} are more than one container serves",
            cause="a container sees the cards of its own machine",
            do="./inv cluster serves across machines",
        )
    name = how.served or source.name
    own = [*([] if source.folder else ["--model", source.repository]), "--served-model-name", name]
    words = read_flags(how.flags)
    own += server_flags(found, words) if found else ["--max-model-len", str(cpu_length(model))]
    own += [] if found else read_flags(video_flag(how.video))
    env = environment(found, words) if found else cpu_environment(model)
    if source.folder:
        env["HF_HUB_OFFLINE"] = "1"
    env |= how.opened.environment()
    wanted = (API_KEYS[variant.backend], REPOSITORY, *(HUB_SETTINGS if source.repository else ()))
    return ContainerSpec(
        name=check_name(how.name),
        image=image,
        arguments=tuple(merged(own, words)),
        env=tuple(env.items()),
        passed=tuple(one for one in wanted if (how.environment or {}).get(one)),
        mounts=(
            *((Mount(source.folder, MODELS),) if source.folder else ()),
            Mount(_cache(how.cache), CACHE, read_only=False),
        ),
        gpus=_cards(found, how) if found else NO_CARDS,
        shm=0 if variant.backend == "transformers" else shm_gigabytes(found) if found else _CPU_SHM,
        memory=memory_of(how.memory, memory_limit(host_memory(found) if found else on_cpu(model))),
        ports=(PublishedPort(PORT, check_port(how.port), how.host),),
        restart=how.restart,
        labels=((SERVED, variant.id), (MODEL, name)),
    )


def _cards(found: Fit, how: Options) -> Gpus:
    on = found.ask.on
    return how.gpus if how.gpus is not None else Gpus(devices=on.devices) if on.devices else Gpus(on.count)


def model_name(spec: ContainerSpec) -> str:
    """What the API of a server made here calls its model."""
    return dict(spec.labels)[MODEL]


def _cache(text: str) -> str:
    """A volume's name, or a folder as the engine wants it. Raises UsageError."""
    if "/" in text:
        return str(Path(text).expanduser().absolute())
    return check_name(text, "a volume's name")


def read_flags(typed: Sequence[str]) -> list[str]:
    """``--flag "--max-model-len 4096"`` as words. Raises UsageError for what is no flag, or not to be set there."""
    words: list[str] = []
    for text in typed:
        try:
            found = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--flag {text!r} cannot be read", cause=str(error), do="close its quotes") from error
        if not found or not found[0].startswith("--"):
            raise UsageError(f"--flag {text!r} is no flag of the server", do='--flag "--max-model-len 4096"')
        if (name := _name(found[0])) in _OURS:
            raise UsageError(
                f"{name} is not the server's to be told here", do=f"give {_OURS[name]} to ./inv serve itself"
            )
        words += found
    return words


def merged(own: Sequence[str], user: Sequence[str]) -> list[str]:
    """Our words without the flags that the user gives, then the user's."""
    given = {_name(word) for word in user if word.startswith("--")}
    out: list[str] = []
    dropping = False
    for word in own:
        if word.startswith("--"):
            dropping = _name(word) in given
        if not dropping:
            out.append(word)
    return [*out, *user]


def _name(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def cpu_length(model: Model) -> int:
    """Tokens of one conversation on a CPU."""
    return min(model.shape.positions, CPU_LENGTH)


def cpu_environment(model: Model) -> dict[str, str]:
    """The cache's size in GiB, where the image's own is too small for one conversation."""
    needed = cpu_cache(model)
    return {"VLLM_CPU_KVCACHE_SPACE": str(needed)} if needed > _CPU_CACHE else {}


def cpu_cache(model: Model) -> int:
    """GiB of the key-value cache on a CPU: one conversation, or what the image has."""
    return max(_CPU_CACHE, math.ceil(kv_bytes(model, model.shape.layers, 1) * cpu_length(model) / GIB))


def on_cpu(model: Model) -> tuple[MemoryLine, ...]:
    """The memory of a server on a CPU, line by line."""
    return cpu_memory(model, cpu_cache(model), _CPU_SHM)


def check_memory(model: Model, memory: int) -> None:
    """Raises NoImageFits where the weights alone are more than a machine's ``memory`` (bytes; 0: not known)."""
    weights = stage_weights(model, (model.shape.layers,), 0, 1) + vision_weights(model, 1)
    if memory and weights > memory:
        raise NoImageFits(
            f"{model.name} does not fit in this machine's memory",
            cause=f"its weights are {human_bytes(weights)}, the machine has {human_bytes(memory)}",
            do="a smaller model"
            + (", or a form in 4 bits, such as 3b-awq" if model.weight_bits > 4 else ", such as 3b-awq"),
        )
