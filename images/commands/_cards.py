"""`--card` and `invoke cards`: names as typed to archs, and to what is printed."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from images.cards import Card, all_cards, choose_images, match_card, read_machine, unfit
from images.catalogue import (
    IMAGES_HEADER,
    SEEN_HEADER,
    CardMatch,
    CardQuery,
    Catalogue,
    Resolved,
    Row,
    answer_json,
    answer_lines,
    choice_json,
    choice_lines,
    image_cells,
    of_records,
    published_rows,
    reference_of,
    refuse_all,
    row_json,
    rows,
    seen_cells,
    with_records,
)
from images.catalogue import match_images as resolve_published
from images.core import Report
from images.docker import docker_words
from images.matrix import Arch, Driver, Matrix, Variants, parse_driver
from images.proof.on_card import GpuRecord
from images.run.serve import spec_without_model

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
        match = match_card(name.strip(), all_cards())
        sizes = " or ".join(f"{size:g}" for size in match.memories)
        report.line(f"{name.strip()}: {match.card.name}, compute capability {match.card.arch}, {sizes} GB")
        found.append(match.card)
    return found


@dataclass(frozen=True)
class Known:
    """What is known of images beside the matrix: which stacks are locked, runs on cards, and what is published.

    ``catalogue`` is None where that is not asked, ``repository`` "" where the catalogue is a file of an unknown one.
    """

    locked: Mapping[str, bool]
    records: Sequence[GpuRecord] = ()
    catalogue: Catalogue | None = None
    repository: str = ""


def cards_command(
    matrix: Matrix, variants: Variants, names: Sequence[str], driver: str, known: Known, json: bool, report: Report
) -> None:
    """`invoke cards`: the named cards as those of one machine; else the table of all, and the cards of this machine.

    With a catalogue, of what is published. Raises UsageError for a bad name or driver, NoImageFits where none of the
    named cards gets an image.
    """
    if names:
        named = [card for text in names for card in _named(text, report)]
        own = parse_driver(driver) if driver else None
        if known.catalogue:
            answer = resolve_published(known.catalogue, matrix, variants, named, own)
            _published(known, known.catalogue, CardQuery(tuple(named), own), answer, json)
        else:
            _recommended(matrix, variants, named, own, known, json, report)
        return
    cards = [card for card in all_cards() if card.arch >= OLDEST]
    if known.catalogue:
        table = published_rows(matrix, variants, cards, known.catalogue)
    else:
        table = with_records(rows(matrix, variants, cards), known.records)
    if json:
        print(json_module.dumps([row_json(row) for row in table], indent=1))
    else:
        _tables(table, report)
    report.line(f"{len(table)} cards, {sum(row.image is not None for row in table)} with an image")
    _here(matrix, variants, known.locked, report)


def _tables(table: Sequence[Row], report: Report) -> None:
    report.table([seen_cells(row) for row in table], SEEN_HEADER)
    if images := image_cells(table):
        report.table(images, IMAGES_HEADER)


def _recommended(
    matrix: Matrix,
    variants: Variants,
    cards: Sequence[Card],
    driver: Driver | None,
    known: Known,
    json: bool,
    report: Report,
) -> None:
    choice = choose_images(matrix, variants, cards, driver, known.locked)
    if not choice.picks:
        raise choice.refusals[0].why
    seen = {pick.variant.id: of_records(known.records, pick.variant.id) for pick in choice.picks}
    if json:
        print(json_module.dumps(choice_json(choice, seen), indent=1))
        return
    print("\n".join(choice_lines(choice, seen)))
    report.next_command(f"./inv build --only '{choice.picks[0].variant.id}'")


def _published(known: Known, catalogue: Catalogue, asked: CardQuery, answer: Resolved, json: bool) -> None:
    refuse_all(answer)
    where = known.repository
    if json:
        runs = [_run(reference_of(where, one.image), one) if where else [] for one in answer.found]
        print(json_module.dumps(answer_json(where, catalogue, asked, answer, runs), indent=1))
    else:
        print("\n".join(answer_lines(where, catalogue, answer)))


def _run(reference: str, found: CardMatch) -> list[str]:
    return docker_words(spec_without_model(reference, cards=bool(found.image.archs)), foreground=True)


def _here(matrix: Matrix, variants: Variants, locked: Mapping[str, bool], report: Report) -> None:
    """What this machine's own cards should have, as progress lines."""
    machine = read_machine()
    if not machine.cards:
        report.line(f"this machine has no card: {machine.why}")
        return
    report.line(f"this machine: driver {machine.driver}, CUDA {machine.cuda}")
    choice = choose_images(matrix, variants, machine.as_cards(), parse_driver(machine.driver), locked)
    for line in choice_lines(choice):
        report.line(line)
