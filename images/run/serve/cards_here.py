"""Which of this machine's cards a container is given. Pure."""

from __future__ import annotations

from images.cards import LocalMachine
from images.docker import NO_CARDS, Gpus


def without_lost(gpus: Gpus | None, machine: LocalMachine, count: int) -> Gpus | None:
    """The cards to give to a container of a machine that has lost some: ``count`` of those that answer, by UUID.

    Without a lost card, or where the cards were named, what was asked for.
    """
    if not machine.lost or (gpus is not None and (gpus.devices or gpus == NO_CARDS)):
        return gpus
    return Gpus(devices=tuple(card.uuid for card in machine.cards[:count]))
