"""What the recorded wheels say in sentences: what a version dropped or brought, and what it has nothing for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from images.device_code.audit import name_of
from images.device_code.verdict import NO_CODE, NONE, Capability
from images.proof.audit.table import CARDS, PARTS, AuditedPart
from images.proof.audit.wheels import Wheel


def notes(wheels: Sequence[Wheel], current: Iterable[Wheel]) -> list[str]:
    """Sentences: what versions dropped and brought, by package; then what the ``current`` wheels have nothing for."""
    sentences: list[str] = []
    for _, of_package in groupby(wheels, key=lambda wheel: wheel.package):
        for older, newer in pairwise(of_package):
            sentences += _changes(older, newer)
    return [*sentences, *_gaps(current)]


def spell_cards(cards: Iterable[Capability]) -> str:
    """ "7.0, 7.5"; "6.1 and older, 10.0 and newer" for the ends of the table."""
    chosen = set(cards)
    older = _leading(chosen, CARDS)
    newer = _leading(chosen, CARDS[::-1])
    middle = [name_of(card) for card in CARDS if card in chosen and card not in (*older, *newer)]
    ends = [f"{name_of(end[-1])} and {word}" for end, word in ((older, "older"), (newer, "newer")) if end]
    return ", ".join([*ends[: bool(older)], *middle, *ends[bool(older) :]])


def _leading(chosen: set[Capability], cards: Sequence[Capability]) -> Sequence[Capability]:
    """The first of ``cards`` as long as they are chosen; one alone is no run."""
    count = next((place for place, card in enumerate(cards) if card not in chosen), len(cards))
    return cards[:count] if count > 1 else ()


def _running(part: AuditedPart, wheel: Wheel) -> set[Capability]:
    """The cards that run any of a part."""
    return {card for card in CARDS if part.judge(wheel, card).kind not in (NONE, NO_CODE)}


def _parts(wheel: Wheel) -> tuple[AuditedPart, list[AuditedPart]]:
    """What a package cannot do without, and its other parts."""
    first, *others = (part for part in PARTS if part.package == wheel.package)
    return first, others


def _changes(older: Wheel, newer: Wheel) -> Iterator[str]:
    main, others = _parts(newer)
    before, after = _running(main, older), _running(main, newer)
    title = main.name([newer.version])
    if gone := before - after:
        yield f"{title} drops {spell_cards(gone)}: nothing in it runs there, and {older.version} still has code."
    if come := after - before:
        yield f"{title} brings {spell_cards(come)}, where {older.version} has nothing."
    for part in others:
        lost = (_running(part, older) - _running(part, newer)) & after
        if lost:
            yield f"{title} drops {part.piece} on {spell_cards(lost)}, where {older.version} still has it."


def _gaps(wheels: Iterable[Wheel]) -> Iterator[str]:
    nothing: dict[tuple[AuditedPart, str], list[str]] = {}
    for wheel in wheels:
        main, others = _parts(wheel)
        cards = _running(main, wheel)
        lacking = [(main, set(CARDS) - cards), *((part, cards - _running(part, wheel)) for part in others)]
        for part, missing in lacking:
            if missing:
                nothing.setdefault((part, spell_cards(missing)), []).append(wheel.version)
    for (part, cards_told), versions in nothing.items():
        yield f"{part.name(versions)} {'has' if len(versions) == 1 else 'have'} nothing for {cards_told}."
