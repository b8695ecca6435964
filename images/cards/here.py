"""Which of this machine's cards are meant: all, so many, or those that were named by index or UUID. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from images.cards.this_machine import LocalCard, LocalMachine, MigInstance
from images.core import UsageError

Picked = tuple[LocalMachine, tuple[str, ...], tuple[str, ...]]


def of_this_machine(machine: LocalMachine, count: int = 0, devices: tuple[str, ...] = ()) -> Picked:
    """The machine with the chosen cards alone; what docker is told of them, () for their number; lines for people.

    A MIG instance stands as a card of its own, with its own memory. ``count`` 0 or less: all. A program sees one MIG
    instance at a time, so without ``devices`` whole cards are taken where there are any, else the largest instance.
    Beside a lost card, which docker would count, those that answer are named by UUID.

    Raises UsageError for a card that it has not, or a card of several MIG instances of which none is named.
    """
    if devices:
        return _named(machine, devices)
    if any(card.mig for card in machine.cards):
        return _beside_instances(machine, count)
    if count > len(machine.cards):
        raise UsageError(
            f"--gpus {count}: this machine has {_number(machine)}",
            do=f"--gpus all; or for another machine: --card NAME --gpus {count}",
        )
    chosen = replace(machine, cards=machine.cards[:count]) if count > 0 else machine
    return chosen, tuple(card.uuid for card in chosen.cards) if machine.lost else (), ()


def _places(machine: LocalMachine) -> Iterator[tuple[int, LocalCard]]:
    """Each card with its place in NVML's order, which a lost card before it does not move."""
    for at, card in enumerate(machine.cards):
        yield (at if card.index is None else card.index), card


def _number(machine: LocalMachine) -> str:
    return f"{len(machine.cards)} card{'' if len(machine.cards) == 1 else 's'}"


def _beside_instances(machine: LocalMachine, count: int) -> Picked:
    whole = [(str(at), card) for at, card in _places(machine) if not card.mig]
    if whole and count <= len(whole):
        taken = whole[:count] if count > 0 else whole
        cut = ", ".join(str(at) for at, card in _places(machine) if card.mig)
        note = f"card {cut} is cut into MIG instances and left out; --gpus device={cut.partition(',')[0]}:0 takes one"
        return _picked(machine, [card for _, card in taken]), tuple(device for device, _ in taken), (note,)
    instances = list(_instances(machine))
    if not instances:
        return machine, (), ("its cards are in MIG mode, and no instance was made: no program can use them",)
    if count > max(1, len(whole)):
        raise UsageError(
            f"--gpus {count}: this machine has {len(whole)} whole cards and {len(instances)} MIG instances",
            cause="a program sees one MIG instance at a time",
            do=_choices(machine),
        )
    largest = max((part for _, _, part in instances), key=lambda part: part.memory)
    card = next(card for _, card, part in instances if part is largest)
    note = f"of its {len(instances)} MIG instances the largest is taken: {largest.name}; {_choices(machine)}"
    return _picked(machine, [_as_card(card, largest)]), (largest.uuid,), (note,) if len(instances) > 1 else ()


def _named(machine: LocalMachine, devices: tuple[str, ...]) -> Picked:
    found: dict[int, tuple[str, LocalCard]] = {}
    for device in devices:
        place, card = _one(machine, device)
        if place in found:
            raise UsageError(f"--gpus: device={','.join(devices)} names a card twice", do="each once: --gpus device=0")
        found[place] = (device, card)
    ordered = [found[place] for place in sorted(found)]
    return _picked(machine, [card for _, card in ordered]), tuple(device for device, _ in ordered), ()


def _one(machine: LocalMachine, device: str) -> tuple[int, LocalCard]:
    """The place of a device in the machine's order, and its card."""
    for at, card in _places(machine):
        place = at * 100
        if device in (str(at), card.uuid):
            if not card.mig:
                return place, card
            if len(card.slices) == 1:
                return place, _as_card(card, card.slices[0])
            raise UsageError(
                f"--gpus: card {device} is cut into {len(card.slices)} MIG instances",
                cause="a program sees one of them at a time, and which is not said",
                do=_choices(machine) if card.slices else "nvidia-smi mig -cgi 0 -C makes the largest instance",
            )
        for index, part in enumerate(card.slices):
            if device in (part.uuid, f"{at}:{index}"):
                return place + 1 + index, _as_card(card, part)
    lost = next((str(one) for one in machine.lost if str(one.index) == device), "")
    told = ", ".join(f"{at}: {card.name}" for at, card in _places(machine))
    parts = f"; {_choices(machine)}" if any(card.slices for card in machine.cards) else ""
    raise UsageError(f"--gpus: this machine has no card {device}", cause=lost, do=f"its cards are {told}{parts}")


def _instances(machine: LocalMachine) -> Iterator[tuple[str, LocalCard, MigInstance]]:
    for at, card in _places(machine):
        for index, part in enumerate(card.slices):
            yield f"{at}:{index}", card, part


def _choices(machine: LocalMachine) -> str:
    listed = [f"--gpus device={part.uuid} ({part.name})" for _, _, part in _instances(machine)]
    more = f", and {len(listed) - 8} more" if len(listed) > 8 else ""
    return f"name one: {', '.join(listed[:8])}{more}"


def _as_card(card: LocalCard, part: MigInstance) -> LocalCard:
    return LocalCard(part.name, part.uuid, card.arch, part.memory)


def _picked(machine: LocalMachine, cards: list[LocalCard]) -> LocalMachine:
    return replace(machine, cards=tuple(cards))
