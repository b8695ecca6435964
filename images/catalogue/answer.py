"""What a catalogue answers to the cards that were asked for: as text for people, as JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from images.cards import AskedCards, Card
from images.catalogue.model import Catalogue, PublishedImage, shared_bytes
from images.catalogue.resolve import CardMatch, MatchResult
from images.core import CardstockError, human_bytes
from images.matrix import Driver


@dataclass(frozen=True)
class CardQuery:
    """The cards to find images for; their driver, None if not known; names and UUIDs of this machine's own cards.

    ``devices`` are what docker is told where not all of the machine is meant: MIG instances, cards beside a lost one.
    """

    cards: tuple[Card, ...]
    driver: Driver | None = None
    uuids: tuple[tuple[str, str], ...] = ()
    devices: tuple[str, ...] = ()

    @classmethod
    def of(cls, asked: AskedCards) -> CardQuery:
        """The query for cards that were asked for; those of this machine come with their UUIDs."""
        own = asked.machine.cards if asked.machine else ()
        return cls(asked.cards, asked.driver, tuple((card.name, card.uuid) for card in own), asked.devices)


_NO_ADVISORIES = "advisories: not known, it was published before there was a list"


def uuids_of(match: CardMatch, asked: CardQuery, resolved: MatchResult) -> list[str]:
    """This machine's cards that an image is for, as docker is told them; empty where it is for all of them."""
    if len(resolved.matches) == 1 and not resolved.refusals:
        return list(asked.devices)
    names = {card.name for card in match.cards}
    return [uuid for name, uuid in asked.uuids if name in names]


def reference_of(repository: str, image: PublishedImage) -> str:
    """An image by its digest, in a repository if that is known."""
    return f"{repository}@{image.digest}" if repository else image.digest


def match_json(repository: str, catalogue: Catalogue, match: CardMatch, run: Sequence[str]) -> dict[str, Any]:
    """A matching image, for scripts."""
    image = match.image
    return {
        "variant": image.variant,
        "reference": reference_of(repository, image),
        "tag": image.tag,
        "cards": [card.name for card in match.cards],
        "notes": list(match.notes),
        "archs": list(image.archs),
        "audited": list(image.audited),
        "min_driver": image.min_driver,
        "compressed": image.compressed,
        "unpacked": image.unpacked,
        "evidence": image.summary(),
        "advisories": image.advisories.model_dump(mode="json") if image.advisories else None,
        "run": list(run),
    }


def answer_json(
    repository: str, catalogue: Catalogue, asked: CardQuery, resolved: MatchResult, runs: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """All of an answer, for scripts."""
    return {
        "repository": repository,
        "driver": str(asked.driver) if asked.driver else None,
        "cards": [{"name": c.name, "arch": str(c.arch), "memory_gb": c.memory or None} for c in asked.cards],
        "images": [
            match_json(repository, catalogue, one, run) for one, run in zip(resolved.matches, runs, strict=True)
        ],
        "refused": [{"card": one.card.name, **_error_json(one.why)} for one in resolved.refusals],
        "lost": [{"variant": one.image.variant, "why": one.why} for one in resolved.passed_over],
    }


def _error_json(error: CardstockError) -> dict[str, Any]:
    return {"what": error.what, "cause": error.cause, "do": error.do, "where": error.where}


def answer_lines(repository: str, catalogue: Catalogue, resolved: MatchResult) -> list[str]:
    """For people: the images that match, why others were not chosen, which cards get none."""
    out = []
    for one in resolved.matches:
        image = one.image
        cards = ", ".join(dict.fromkeys(card.name for card in one.cards))
        out.append(f"{image.variant}{f' for {cards}' if cards else ''}")
        out.append(f"  {reference_of(repository, image)}")
        also = shared_bytes(catalogue, image, [other.image for other in resolved.matches if other is not one])
        shared = f", {human_bytes(also)} of it shared with the other" if also else ""
        out.append(f"  to pull {human_bytes(image.compressed)}, on disk {human_bytes(image.unpacked)}{shared}")
        out.append(f"  audited for {' '.join(image.audited) or 'the CPU'}; driver from {image.min_driver or 'none'}")
        out.append(f"  {image.summary()}")
        out.append(f"  {image.advisories.summary() if image.advisories else _NO_ADVISORIES}")
        out += [f"  note: {note}" for note in one.notes]
    if len(resolved.matches) > 1:
        out.append("no image published here covers all of these cards: one for each kind of card")
    out += [f"not {one.image.variant}: {one.why}" for one in resolved.passed_over]
    for refusal in resolved.refusals:
        out += [f"no image: {refusal.why.what}", f"  cause: {refusal.why.cause}", f"  do: {refusal.why.do}"]
    return out
