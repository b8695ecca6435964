"""`--card` and `invoke cards`: names as typed to archs, and to what is printed."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence

from images.arch import Arch
from images.cards.choose import choose, unfit
from images.cards.data import Card, all_cards
from images.cards.listing import HEADER, cells, choice_json, choice_lines, row_json, rows
from images.cards.names import resolve
from images.drivers import parse_driver
from images.matrix import Matrix
from images.nvml import read_machine
from images.report import Report
from images.variants import Variants

OLDEST = Arch(5, 0)


def archs_of(texts: Sequence[str], report: Report) -> list[str]:
    """The arch lists that cards named on the command line stand for; "T4, RTX 4090" is one image for both.

    Raises UsageError for a name that is no card's or several cards', NoImageFits for a card that no image can serve.
    """
    lists = []
    for text in texts:
        found = _named(text, report)
        for card in found:
            if reason := unfit(card):
                raise reason
        lists.append(" ".join(card.arch.capability for card in found))
    return lists


def _named(text: str, report: Report) -> list[Card]:
    found = []
    for name in text.split(","):
        match = resolve(name.strip(), all_cards())
        sizes = " or ".join(f"{size:g}" for size in match.memories)
        report.line(f"{name.strip()}: {match.card.name}, compute capability {match.card.arch}, {sizes} GB")
        found.append(match.card)
    return found


def cards_command(
    matrix: Matrix,
    variants: Variants,
    names: Sequence[str],
    driver: str,
    locked: Mapping[str, bool],
    json: bool,
    report: Report,
) -> None:
    """`invoke cards`: the named cards as those of one machine; else the table of all, and the cards of this machine.

    Raises UsageError for a bad name or driver, NoImageFits where none of the named cards gets an image.
    """
    if names:
        named = [card for text in names for card in _named(text, report)]
        choice = choose(matrix, variants, named, parse_driver(driver) if driver else None, locked)
        if not choice.picks:
            raise choice.refusals[0].why
        if json:
            print(json_module.dumps(choice_json(choice), indent=1))
        else:
            print("\n".join(choice_lines(choice)))
            report.next_command(f"./inv build --only '{choice.picks[0].variant.id}'")
        return
    table = rows(matrix, variants, [card for card in all_cards() if card.arch >= OLDEST])
    if json:
        print(json_module.dumps([row_json(row) for row in table], indent=1))
    else:
        report.table([cells(row) for row in table], HEADER)
    report.line(f"{len(table)} cards, {sum(row.image is not None for row in table)} with an image")
    _here(matrix, variants, locked, report)


def _here(matrix: Matrix, variants: Variants, locked: Mapping[str, bool], report: Report) -> None:
    """What this machine's own cards should have, as progress lines."""
    machine = read_machine()
    if not machine.cards:
        report.line(f"this machine has no card: {machine.why}")
        return
    report.line(f"this machine: driver {machine.driver}, CUDA {machine.cuda}")
    choice = choose(matrix, variants, machine.as_cards(), parse_driver(machine.driver), locked)
    for line in choice_lines(choice):
        report.line(line)
