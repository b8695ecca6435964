"""`invoke cards`: the image that each card should have, of the matrix or of what is published."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from images.cards import Card, all_cards, choose_images, named_cards
from images.catalogue import (
    EVIDENCE_HEADER,
    IMAGES_HEADER,
    CardQuery,
    CardRow,
    Catalogue,
    answer_json,
    answer_lines,
    card_rows,
    cells_with_evidence,
    choice_json,
    choice_lines,
    image_cells,
    match_images,
    one_by_one,
    published_rows,
    read_inputs,
    records_evidence,
    reference_of,
    require_match,
    row_json,
    with_acted,
    with_records,
)
from images.commands.options import JSON, command, print_json
from images.commands.pull import CatalogueOptions, run_words
from images.context import Context
from images.core import print_out
from images.core.options import option
from images.matrix import Arch, Driver, parse_driver
from images.proof.on_card.records import GpuRecord, read_gpu_records

OLDEST = Arch(5, 0)


@dataclass(frozen=True)
class CardsOptions(CatalogueOptions):
    """What `invoke cards` was asked."""

    cards: Sequence[str] = option("only this one; repeat for the cards of one machine", (), flag="card")
    driver: str = option("its driver, such as 535.104", "")
    json: bool = option(JSON, False)


@command("cards --card 'RTX 4090' --driver 535.104")
def cards(context: Context, options: CardsOptions) -> None:
    """Which image each card should have, or why none; the cards of this machine; what is published for them."""
    show_cards(context, options)


def show_cards(context: Context, options: CardsOptions, records: Sequence[GpuRecord] | None = None) -> None:
    """The named cards as those of one machine; else the table of all, and the cards of this machine.

    With a catalogue, of what is published. ``records`` stand in for those of `records/cards`. Raises UsageError for a
    bad name or driver, NoImageFits where none of the named cards gets an image.
    """
    catalogue = options.catalogue(context)
    proven = read_gpu_records() if records is None else records
    if not options.cards:
        show_all(context, options, catalogue, proven)
        return
    named = named_cards(options.cards, context.report)
    driver = parse_driver(options.driver) if options.driver else None
    if catalogue:
        show_published(context, options, catalogue, CardQuery(named, driver))
    else:
        show_recommended(context, options, named, driver, proven)


def show_all(context: Context, options: CardsOptions, catalogue: Catalogue | None, proven: Sequence[GpuRecord]) -> None:
    """The table of all cards, then this machine's own."""
    listed = [card for card in all_cards() if card.arch >= OLDEST]
    today = todays_inputs(context, proven)
    if catalogue:
        table = published_rows(context.matrix, context.variants, listed, catalogue, proven)
    else:
        table = with_records(card_rows(context.matrix, context.variants, listed), proven, today)
    if options.json:
        print_json([row_json(row, proven, today) for row in table])
    else:
        print_tables(context, table, proven, today)
    context.report.line(f"{len(table)} cards, {sum(row.image is not None for row in table)} with an image")
    report_this_machine(context)


def print_tables(
    context: Context, table: Sequence[CardRow], proven: Sequence[GpuRecord], today: Mapping[str, str]
) -> None:
    """The cards, and the images that they should have."""
    rows = list(one_by_one(table))
    lines = [EVIDENCE_HEADER, *(cells_with_evidence(row) for row in rows)]
    header, *cells = with_acted(lines, [row.image for row in rows], proven, today, behind=2)
    context.report.table(cells, header)
    if images := image_cells(table):
        context.report.table(images, IMAGES_HEADER)


def show_recommended(
    context: Context, options: CardsOptions, named: Sequence[Card], driver: Driver | None, proven: Sequence[GpuRecord]
) -> None:
    """What the matrix recommends for these cards."""
    choice = choose_images(context.matrix, context.variants, named, driver, context.locked)
    if not choice.picks:
        raise choice.refusals[0].why
    today = todays_inputs(context, proven)
    seen = {pick.variant.id: records_evidence(proven, pick.variant.id, today) for pick in choice.picks}
    if options.json:
        print_json(choice_json(choice, seen))
        return
    print_out("\n".join(choice_lines(choice, seen)))
    if context.checkout.installed:
        context.report.next_command(pull_line(options), "REPO: where images for these cards are published")
    else:
        context.report.next_command(f"./inv build --only '{choice.picks[0].variant.id}'")


def pull_line(options: CardsOptions) -> str:
    """What fetches the image of these cards."""
    driver = ["--driver", options.driver] if options.driver else []
    return shlex.join(
        ["./inv", "pull", "--from", "REPO", *(w for name in options.cards for w in ("--card", name)), *driver]
    )


def todays_inputs(context: Context, proven: Sequence[GpuRecord]) -> Mapping[str, str]:
    """Variant -> hash of the inputs of its image today, of those that records name; the package keeps them."""
    if context.checkout.installed:
        return read_inputs(context.checkout.root)
    from images.build import input_hashes

    return input_hashes(context, (record.variant for record in proven))


def show_published(context: Context, options: CardsOptions, catalogue: Catalogue, query: CardQuery) -> None:
    """What is published for these cards."""
    resolved = match_images(catalogue, context.matrix, context.variants, query.cards, query.driver)
    require_match(resolved)
    where = options.source
    if options.json:
        runs = [run_words(one, reference_of(where, one.image)) if where else [] for one in resolved.matches]
        print_json(answer_json(where, catalogue, query, resolved, runs))
    else:
        print_out("\n".join(answer_lines(where, catalogue, resolved)))


def report_this_machine(context: Context) -> None:
    """What this machine's own cards should have, as progress lines."""
    machine, report = context.machine, context.report
    if not machine.cards:
        report.line(f"this machine has no card: {machine.why}")
        return
    report.line(f"this machine: driver {machine.driver}, CUDA {machine.cuda}")
    cards = machine.as_cards()
    choice = choose_images(context.matrix, context.variants, cards, machine.known_driver, context.locked)
    for line in choice_lines(choice):
        report.line(line)
