"""What a person types to serve with an image that is there: the model's place is left to be put in. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from images.docker import ALL_CARDS, NO_CARDS, ContainerSpec, Gpus, Mount, PublishedPort
from images.render import CACHE, MODELS, PORT
from images.run.serve.make import CACHE_VOLUME

PLACE = "/path/to/model"


def spec_without_model(image: str, *, cards: bool, uuids: Sequence[str] = ()) -> ContainerSpec:
    """The server of ``image`` with its own settings, the model in `PLACE`.

    ``cards``: it needs some, those of ``uuids``, or all there are.
    """
    return ContainerSpec(
        image,
        mounts=(Mount(PLACE, MODELS), Mount(CACHE_VOLUME, CACHE, read_only=False)),
        ports=(PublishedPort(PORT, PORT),),
        gpus=NO_CARDS if not cards else Gpus(devices=tuple(uuids)) if uuids else ALL_CARDS,
        shm=4,
    )


def serve_words(variant: str, uuids: Sequence[str] = ()) -> list[str]:
    """`invoke serve` with an image that is here and the settings that fit its cards; MODEL is to be put in."""
    gpus = ["--gpus", f"device={','.join(uuids)}"] if uuids else []
    return ["./inv", "serve", "--variant", variant, *gpus, "--model", "MODEL"]
