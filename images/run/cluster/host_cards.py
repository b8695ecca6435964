"""The cards of hosts.yaml, read as `fit` and `serve` read them: names that mean the same card are one card."""

from __future__ import annotations

from images.cards import AskedCards, Selection, asked_cards
from images.core import CardstockError, UsageError
from images.run.cluster.hosts import Host, Hosts

# hosts.yaml has keys where commands have flags.
_KEYS = (("--gpus device=", "devices: "), ("--card ", "card: "), ("--memory ", "memory: "))


def check_cards(hosts: Hosts, where: str) -> None:
    """Raises UsageError for a host whose card and devices cannot be read, and for hosts of different cards."""
    read = [(host, _cards_of(host, where)) for host in hosts.hosts]
    if len({_shares(cards) for _, cards in read}) > 1:
        told = ", ".join(dict.fromkeys(_told(host, cards) for host, cards in read))
        raise UsageError(
            f"the hosts have different cards: {told}",
            cause="each part of the model gets the same share, so the smallest card decides and the others wait for it",
            do="make a cluster of each kind, or name the smallest card for all",
            where=where,
        )


def _cards_of(host: Host, where: str) -> AskedCards:
    devices = tuple(map(str, host.devices))
    try:
        return asked_cards(
            [host.card], "", purpose="", do="", selection=Selection(devices=devices), memory=host.memory_text
        )
    except CardstockError as error:
        raise type(error)(
            f"{host.name}: {error.what}", cause=error.cause, do=in_keys(error.do), where=error.where or where
        ) from error


def in_keys(text: str) -> str:
    """Advice that names flags, in the keys of hosts.yaml."""
    for flag, key in _KEYS:
        text = text.replace(flag, key)
    return text


def _shares(cards: AskedCards) -> tuple[tuple[str, float], ...]:
    """What matters of each card for its share: capability and memory, not the form it is sold in."""
    return tuple((card.arch.capability, card.memory) for card in cards.cards)


def _told(host: Host, cards: AskedCards) -> str:
    """As it was written; with the memory where that differs from what the name says."""
    return f"{host.card} {cards.stated:g} GB" if cards.stated else host.card
