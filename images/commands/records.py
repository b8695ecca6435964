"""`invoke records`: records of runs on cards, as others send them in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from images.build import input_hashes
from images.cards import Card, all_cards, match_card
from images.catalogue import Catalogue
from images.commands.options import JSON, command, print_json
from images.commands.pull import CatalogueOptions
from images.context import Context
from images.core import UTC, CheckFailed, UsageError, print_out
from images.core.options import option
from images.matrix import Variant
from images.proof.on_card.records import (
    Finding,
    GpuRecord,
    Known,
    PublishedAs,
    check_record,
    read_gpu_records,
    read_with_data,
)
from images.render import read_lock

CHECK = "check"


@dataclass(frozen=True)
class RecordsOptions(CatalogueOptions):
    """What `invoke records` was asked; a catalogue that is named must have the record's image."""

    action: str = option("check", "", positional=True)
    file: str = option("a record, as the proof on a card has written it", "", positional=True)
    json: bool = option(JSON, False)


@command("records check record.json")
def records(context: Context, options: RecordsOptions) -> None:
    """Check a record of a run on a card that somebody sent in: seal, image, packages, card, times, answers."""
    check_sent_in(context, options, datetime.now(UTC))


def check_sent_in(context: Context, options: RecordsOptions, now: datetime) -> None:
    """Print what holds, what does not, and what could not be checked.

    Raises UsageError for another action, or a file that is no record; CheckFailed where something does not hold.
    """
    if options.action != CHECK:
        raise UsageError(f"records does not know {options.action!r}", do=f"./inv records {CHECK} FILE")
    path = Path(options.file).expanduser()
    record, data = read_with_data(path)
    findings = check_record(record, data, known_of(context, record, options.catalogue(context), now))
    if options.json:
        print_json({"file": str(path), "evidence": record.evidence(), "findings": [asdict(one) for one in findings]})
    else:
        print_out("\n".join(_line(one) for one in findings))
    if bad := [one for one in findings if one.said == "refused"]:
        raise CheckFailed(
            f"{path.name} is refused: {', '.join(one.what for one in bad)}",
            cause="; ".join(one.why for one in bad),
            do="ask whoever sent it for the file as ./inv test --gpu has written it",
            where=str(path),
        )
    held = sum(one.said == "holds" for one in findings)
    context.report.line(f"{record.evidence()}; {held} of {len(findings)} checks hold, none refuses it")
    context.report.next_command(
        f"cp {path} records/cards/ && ./inv render", "to keep it; docs/proven.md says what this cannot find"
    )


def known_of(context: Context, record: GpuRecord, catalogue: Catalogue | None, now: datetime) -> Known:
    """What a record is held against: the matrix, its image's lock and inputs, the list of cards, a catalogue."""
    variant = context.variants.named(record.variant)
    return Known(
        now=now,
        variant=variant,
        today=input_hashes(context, [record.variant]).get(record.variant, ""),
        locked=_locked(context, variant),
        card=_card(record.card),
        published=None if catalogue is None else _published(catalogue),
        others=[one for one in read_gpu_records() if one.created != record.created],
    )


def _locked(context: Context, variant: Variant | None) -> dict[str, str]:
    lock = read_lock(context.checkout.locks, variant.lock) if variant else None
    return lock.versions() if lock else {}


def _published(catalogue: Catalogue) -> list[PublishedAs]:
    return [PublishedAs(one.variant, one.input, one.digest, one.config) for one in catalogue.images]


def _card(name: str) -> Card | None:
    try:
        return match_card(name, all_cards()).card
    except UsageError:
        return None


def _line(finding: Finding) -> str:
    return f"{finding.said}: {finding.what}" + (f": {finding.why}" if finding.why else "")
