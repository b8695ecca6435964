"""Questions about cards and drivers for `invoke pull` and the program `which`: many, mixed, odd."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from images.cards import Card, all_cards
from images.which.questions import Question, card_json

REPOSITORY = "registry.example.com/team/qwen"
# Of every branch that a table knows, one; forms that are not whole; the last before an image's own; two of no table.
DRIVERS = (
    *("384.81", "396.26", "410.48", "418.39", "440.33", "450.36.06", "450.80.02", "455.23", "460.27.03", "465.19.01"),
    *("470.42.01", "495.29.05", "510.39.01", "515.43.04", "520.61.05", "525", "525.60", "525.60.13", "525.60.12"),
    *("530.30.02", "535", "535.54.03", "535.104.05", "545.23.06", "550.54.14", "555.42.02", "560.28.03", "565.57.01"),
    *("570", "570.26", "570.25.99", "575.51.03", "575", "580.65.06", "580.65.05", "580", "580.159.04", "590.44.01"),
    *("595.1", "999"),
)
PROFILES = ("1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb", "1g.10gb+me")
_GIB = 1 << 30


def by_name(cards: Sequence[Card], drivers: Sequence[str]) -> Iterator[Question]:
    """Each card with each driver."""
    for card in cards:
        for driver in drivers:
            yield {"cards": [card_json(card)], "driver": driver}


def mixed(count: int, chance: random.Random) -> Iterator[Question]:
    """Cards of several kinds in one machine, some of them twice, with and without a driver."""
    cards = all_cards()
    for _ in range(count):
        chosen = [chance.choice(cards) for _ in range(chance.randint(2, 5))]
        chosen += [chance.choice(chosen)] * chance.randint(0, 2)
        driver = chance.choice(DRIVERS) if chance.random() < 0.85 else ""
        yield {"cards": [card_json(card) for card in chosen], "driver": driver, "way": _way(chance)}


def machines(count: int, chance: random.Random) -> Iterator[Question]:
    """Machines as NVML tells of them: whole cards, MIG, vGPU, lost cards, capabilities that no table has."""
    cards = [card for card in all_cards() if card.arch.major >= 6]
    for _ in range(count):
        own = [_local(chance, chance.choice(cards), at) for at in range(chance.randint(1, 4))]
        lost = [
            {"index": len(own), "address": "0000:3b:00.0", "what": "the card has fallen off the bus (NVML error 15)"}
        ]
        machine = {
            "driver": chance.choice(DRIVERS),
            "cards": own,
            "lost": lost if chance.random() < 0.2 else [],
            "host": "arm64" if chance.random() < 0.05 else "",
        }
        yield {"machine": machine, "way": _way(chance)}


def _way(chance: random.Random) -> str:
    return chance.choice(("", "nvidia", "cdi"))


def _local(chance: random.Random, card: Card, at: int) -> dict[str, Any]:
    kind = chance.random()
    arch = f"{chance.randint(5, 14)}.{chance.randint(0, 9)}" if kind < 0.08 else str(card.arch)
    memory = int(card.memory * _GIB * chance.uniform(0.9, 1.0)) if kind < 0.95 else 0
    name = f"NVIDIA {card.name}"
    made: dict[str, Any] = {"name": name, "uuid": f"GPU-{at:08x}", "arch": arch, "memory": memory, "index": at}
    if 0.1 < kind < 0.3:
        made |= {"mig": True, "slices": []}
        for part in range(chance.randint(0, 11)):
            profile = chance.choice(PROFILES)
            size = int(profile.partition(".")[2].partition("gb")[0]) * _GIB
            made["slices"].append({"name": f"{name} MIG {profile}", "uuid": f"MIG-{at}-{part}", "memory": size})
    elif 0.3 < kind < 0.4:  # a share of it in a virtual machine
        size = chance.choice((1, 2, 4, 8, 16, 24))
        made |= {"name": f"GRID {card.name.split()[0]}-{size}Q", "memory": size * _GIB}
    return made
