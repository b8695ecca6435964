"""Which image and card are behind a server's address, as the engine of this machine knows its containers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from images.cards import counted_name
from images.render import VARIANT
from images.run.demo.server import is_loopback
from images.run.demo.settings import Answering

if TYPE_CHECKING:
    from images.cards import LocalCard
    from images.docker import ContainerState

CPU = "the CPU"
_ARCHS = "dev.cardstock.archs"
_HTTP = {"http": 80, "https": 443}


def answering_at(server: str, containers: Iterable[ContainerState], cards: Sequence[LocalCard]) -> Answering:
    """What answers at ``server`` (an address of this machine), of its running containers; ``cards`` are its own.

    What is not known stays "": a server elsewhere, one without a container of ours, cards that nobody named.
    """
    where = urlsplit(server)
    if not is_loopback(where.hostname or ""):
        return Answering()
    port = where.port or _HTTP[where.scheme]
    for container in containers:
        image = container.labels.get(VARIANT, "")
        if image and container.status == "running" and port in _ports(container.attributes):
            return Answering(image, _card(container, cards))
    return Answering()


def _ports(attributes: Mapping[str, Any]) -> set[int]:
    """The ports of this machine that lead into the container."""
    bound = (attributes.get("HostConfig") or {}).get("PortBindings") or {}
    texts = (str(one.get("HostPort") or "") for some in bound.values() for one in some or ())
    return {int(text) for text in texts if text.isdecimal()}


def _card(container: ContainerState, cards: Sequence[LocalCard]) -> str:
    """The names of the cards that the container was given, such as "2 x NVIDIA L4"; "" where they cannot be told."""
    if not container.labels.get(_ARCHS, ""):
        return CPU
    requests: Sequence[Any] = (container.attributes.get("HostConfig") or {}).get("DeviceRequests") or []
    asked = [str(one).rpartition("=")[2] for request in requests for one in request.get("DeviceIDs") or ()]
    if asked and "all" not in asked:
        cards = [card for card in cards if card.uuid in asked or str(card.index) in asked]
    elif len(requests) == 1 and int(requests[0].get("Count") or -1) > 0:
        cards = cards[: int(requests[0]["Count"])]
    names = [card.name for card in cards]
    return ", ".join(counted_name(name, names.count(name)) for name in dict.fromkeys(names))
