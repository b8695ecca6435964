"""Which cards were meant: those that were named, or those of this machine. One reading for every command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from images.cards.data import Card, all_cards
from images.cards.here import of_this_machine
from images.cards.named import Named, read_gigabytes, read_names, with_memory
from images.cards.names import match_card
from images.cards.this_machine import LocalMachine, read_machine
from images.cards.written import MOST_CARDS, counted_name
from images.core import NoImageFits, Report, UsageError
from images.matrix import Arch, Driver, parse_driver

_EACH = "name each card as often as it is there, such as --card '2 x RTX 3090' --card 'RTX 4090', and no number"


@dataclass(frozen=True)
class Selection:
    """How cards are picked of their machine: the first ``count`` (0: all), or ``devices`` as docker takes them.

    A device is an index, an index of a MIG instance ("0:1"), or a UUID.
    """

    count: int = 0
    devices: tuple[str, ...] = ()


EVERY = Selection()


@dataclass(frozen=True)
class AskedCards:
    """The cards asked for, in their machine's order, each as often as it is there; ``driver`` None if it is not known.

    ``machine`` is the one they are in, if it is this one, with these cards alone. ``devices`` are what docker is told
    instead of a number; ``stated`` is the memory in GB that was said for a named card; ``part``: not all of the
    machine's cards are meant; ``written`` is the name that each was given, () where that is its own.
    """

    cards: tuple[Card, ...]
    driver: Driver | None
    machine: LocalMachine | None = None
    devices: tuple[str, ...] = ()
    stated: float = 0
    part: bool = False
    written: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many."""
        return len(self.cards)

    @property
    def kinds(self) -> tuple[Card, ...]:
        """Each kind once, in their order."""
        return tuple(dict.fromkeys(self.cards))

    @property
    def archs(self) -> tuple[Arch, ...]:
        """Their compute capabilities, the oldest first."""
        return tuple(sorted({card.arch for card in self.cards}))

    @property
    def mixed(self) -> bool:
        """Whether they are of several kinds."""
        return len({(card.name, card.arch) for card in self.cards}) > 1

    @property
    def text(self) -> str:
        """As it is told: "RTX 3090", "2 x RTX 3090 and RTX 4090"."""
        return " and ".join(counted_name(name, count) for name, count in _runs(card.name for card in self.cards))

    def words(self, number: str = "--gpus") -> list[str]:
        """The flags of `fit` and `serve` that mean these cards: read again they give the same value.

        ``number`` is the flag that says how many. Names stand as they were written.
        """
        words: list[str] = []
        if self.machine is None:
            runs = _runs(self.written or [card.name for card in self.cards])
            listed = [runs[0][0]] if not self.mixed else [counted_name(*run) for run in runs]
            words += [word for name in listed for word in ("--card", name)]
            words += ["--memory", f"{self.stated:g}"] if self.stated else []
        if self.devices:
            words += ["--gpus", f"device={','.join(self.devices)}"]
        elif self.part or (self.machine is None and not self.mixed and self.count > 1):
            words += [number, str(self.count)]
        return words

    def times(self, count: int) -> AskedCards | None:
        """So many of its one kind, by name; None where this machine's card has no name that is known."""
        (kind,) = self.kinds
        if self.machine is None:
            return AskedCards((kind,) * count, self.driver, stated=self.stated)
        try:
            card = match_card(kind.name, all_cards()).card
        except UsageError:
            return None
        same = card.arch == kind.arch and abs(card.memory - kind.memory) <= 0.1 * card.memory
        return AskedCards((card,) * count, self.driver) if same else None


def _runs(names: Iterable[str]) -> list[tuple[str, int]]:
    return [(name, len(list(same))) for name, same in groupby(names)]


def asked_cards(
    names: Sequence[str],
    driver: str,
    report: Report | None = None,
    *,
    purpose: str,
    do: str,
    machine: LocalMachine | None = None,
    selection: Selection = EVERY,
    memory: str = "",
) -> AskedCards:
    """The named cards, or without names this machine's; ``machine`` stands in for this one.

    One name without a number is a kind of card, and ``selection`` says how many of it; more names are the cards of one
    machine in their order, and ``selection`` picks of them, as it does of this machine's. ``memory`` is stated for a
    named card ("48", in GB). A ``driver`` that is said counts more than the machine's.

    Raises UsageError for what cannot be read or cannot be together, NoImageFits (with ``purpose``, such as "to find an
    image for", and ``do``) where this machine has no card.
    """
    said = parse_driver(driver) if driver else None
    if not -1 <= selection.count <= MOST_CARDS:
        raise UsageError(f"{selection.count} is no number of cards", do=f"1 to {MOST_CARDS}, such as 2")
    if names:
        stated = read_gigabytes(memory) if memory else 0
        return _of_named(read_names(names, report, stated=stated), said, selection, stated)
    if memory:
        raise UsageError(
            "--memory is for a card that is named",
            cause="of this machine's own cards the driver tells it",
            do=f"--card NAME --memory {memory}",
        )
    here = machine or read_machine()
    if not here.cards:
        mend = f"{here.do}; or {do}" if here.do else do
        raise NoImageFits(f"this machine has no NVIDIA card {purpose}", cause=here.why, do=mend)
    chosen, devices, notes = of_this_machine(here, selection.count, selection.devices)
    if report is not None:
        for lost in here.lost:
            report.line(f"{lost}; the other cards are used", "yellow")
        for note in notes:
            report.line(note)
    part = len(chosen.cards) < len(here.cards)
    return AskedCards(chosen.as_cards(), said or here.known_driver, chosen, devices, part=part)


def _of_named(read: Sequence[Named], driver: Driver | None, selection: Selection, stated: float) -> AskedCards:
    named = [one for one in read for _ in range(one.count)]
    if stated:
        if len({one.card for one in named}) > 1:
            raise UsageError(
                f"--memory {stated:g} is said of several kinds of cards",
                do="name those with another memory by it: --card 'GeForce RTX 4090 48 GB'",
            )
        rebuilt = with_memory(named[0].card, stated)
        named = [replace(one, card=rebuilt, text=one.text if rebuilt == one.card else rebuilt.name) for one in named]
        stated = 0 if rebuilt in all_cards() else stated
    kind = len(named) == 1 and not read[0].counted
    devices = tuple(sorted(selection.devices, key=_place))
    if devices:
        named = _by_device(named, devices, kind, bool(stated))
    elif selection.count > 0:
        if not kind and selection.count > len(named):
            raise UsageError(f"{_cards(len(named))} named, and {selection.count} asked for", do=_EACH)
        named = named * selection.count if kind else named[: selection.count]
    if len(named) > MOST_CARDS:
        raise UsageError(f"{len(named)} cards are more than a machine has", do=f"up to {MOST_CARDS}")
    cards, written = tuple(one.card for one in named), tuple(one.text for one in named)
    return AskedCards(cards, driver, devices=devices, stated=stated, written=written)


def _by_device(named: list[Named], devices: tuple[str, ...], kind: bool, stated: bool) -> list[Named]:
    """The cards that ``devices`` are: each the one kind, those at these places, or one after the other."""
    if len(set(devices)) < len(devices):
        raise UsageError(f"device={','.join(devices)} names a card twice", do="each once: --gpus device=0,1")
    instances = [device for device in devices if ":" in device or device.startswith("MIG-")]
    if instances and not stated and not all(one.card.mig for one in named):
        raise UsageError(
            f"the memory of the MIG instance {instances[0]} is not known",
            cause=f"{named[0].card.name} is the name of the whole card",
            do="name the instance as nvidia-smi -L does: --card 'A100 MIG 3g.20gb'; or say its GB: --memory 20",
        )
    if kind:
        return named * len(devices)
    if all(device.isdigit() and int(device) < len(named) for device in devices):
        return [named[int(device)] for device in devices]
    if len(named) == len(devices):
        return named
    raise UsageError(
        f"{_cards(len(named))} named, and device={','.join(devices)} asked for",
        cause="the names are the machine's cards in their order, 0 the first",
        do=_EACH,
    )


def _cards(count: int) -> str:
    return "1 card" if count == 1 else f"{count} cards"


def _place(device: str) -> tuple[int, str]:
    """Indices in their order, for that is what a container sees; then UUIDs as they were said (sorting is stable)."""
    return (int(device), "") if device.isdigit() and len(device) < 5 else (MOST_CARDS, "")
