"""An ask as people type it: the flags that give the same plan again, in `fit`, `serve` and `cluster`. Pure."""

from __future__ import annotations

import shlex
from dataclasses import replace

from images.run.fit.choose import Ask


def plan_words(ask: Ask) -> list[str]:
    """The flags of `fit` and `serve` beside --model: cards, driver, image, split, videos, as far as they were said."""
    return [*ask.on.words(), *cluster_words(ask)]


def cluster_words(ask: Ask) -> list[str]:
    """The same for `cluster`, whose hosts.yaml names the cards."""
    driver = str(ask.on.driver) if ask.on.driver and not _own_driver(ask) else ""
    said = {
        "--driver": driver,
        "--variant": ask.variant.id if ask.named else "",
        "--tp": ask.tp,
        "--pp": ask.pp,
        "--video": ask.video,
    }
    return [word for flag, value in said.items() if value for word in (flag, str(value))]


def _own_driver(ask: Ask) -> bool:
    return ask.on.machine is not None and ask.on.driver == ask.on.machine.known_driver


def fit_line(ask: Ask, config: str = "") -> str:
    """`./inv fit` for this ask; ``config`` is the file that was said to be the config.json of a model of no hub."""
    nodes = ["--nodes", str(ask.nodes)] if ask.nodes > 1 else []
    told = ["--config", config] if config and ask.model.called else []
    on = replace(ask.on, written=())
    return shlex.join(
        ["./inv", "fit", "--model", ask.model.name, *told, *on.words("--count"), *nodes, *cluster_words(ask)]
    )
