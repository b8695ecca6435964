"""On what an image was seen to run, in a few words: by the catalogue that has it, else by records of runs on cards.

The words are those of docs/proven.md, the weakest first: not yet on a card; audited, CPU canary, CPU server; acted as;
(its packages); unpacked; in a container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from images.catalogue.model import PublishedImage
from images.proof.on_card.records import GpuRecord, Place, records_of_variant
from images.proof.smoke import LevelName

# What a level has shown when no card was there.
_WITHOUT_CARD: Mapping[LevelName, str] = {"audit": "audited", "canary": "CPU canary", "server": "CPU server"}
UNSEEN = "not yet on a card"
# Where a record's run was, the weakest first: how its evidence is said where the model answered on the card, and where
# only what comes before that was tried. What is said of a card that was acted stands before these.
_WORDS: Mapping[Place, tuple[str, str]] = {
    "packages": ("proven on", "tried on"),  # and "(its packages)" behind
    "unpacked": ("proven unpacked, without an engine, on", "tried unpacked, without an engine, on"),
    "image": ("proven in a container on", "tried in a container on"),
}
CHECKED = "checked inside"
EARLIER = "an earlier build"
_STEPS_TOLD = 3  # of a run in which no model answered
_LINK = "records/cards/{}.json"


@dataclass(frozen=True)
class Seen:
    """What was seen of an image: the words, the day ("2026-11-28"; "" where none is told), its record's path or ""."""

    words: str = ""
    day: str = ""
    record: str = ""

    def __str__(self) -> str:
        """For a terminal: "proven in a container on NVIDIA H200, driver 580.159 (2026-11-28, records/cards/x.json)"."""
        where = ", ".join(part for part in (self.day, self.record) if part)
        return f"{self.words} ({where})" if where else self.words

    def markdown(self) -> str:
        """For a page at the root of the checkout: a link to the record, and the day."""
        words = f"[{self.words}]({self.record})" if self.record else self.words
        return f"{words}, {self.day}" if self.day else words


NOTHING = Seen()


def image_evidence(image: PublishedImage, records: Iterable[GpuRecord] = ()) -> Seen:
    """Of a published image: "proven in a container on Tesla T4, driver 535.104.05", by the highest level that ran on a
    card, which a publication does in a container. Without one, what ``records`` say of this very image; else "audited,
    CPU canary".
    """
    passed = [proof for proof in image.evidence if proof.status == "passed"]
    if on_card := [proof for proof in passed if proof.card]:
        last = on_card[-1]
        served = any(proof.level == "server" for proof in on_card)
        words = _WORDS["image"][0] if served else _WORDS["image"][1]
        levels = "" if served else f": {', '.join(proof.level for proof in on_card)}"
        return Seen(_on_card(words, last.card or "", last.driver or "") + levels, last.at[:10])
    own = [one for one in records if _is_of(one, image)]
    if own and (seen := records_evidence(own, image.variant, {image.variant: image.input})).words != UNSEEN:
        return seen
    return Seen(", ".join(_WITHOUT_CARD[proof.level] for proof in passed if proof.level in _WITHOUT_CARD) or CHECKED)


def _is_of(record: GpuRecord, image: PublishedImage) -> bool:
    """Whether a record speaks of a published image: of its inputs, and where it names an image, of this one."""
    if record.variant != image.variant or record.input_hash != image.input:
        return False
    named = {record.image_digest, record.image_id} - {""}
    return not named or bool(named & {image.digest, image.config})


def is_of_today(record: GpuRecord, today: Mapping[str, str]) -> bool:
    """Whether the image that ran is made of today's inputs; ``today`` has their hash by variant."""
    return bool(record.input_hash) and record.input_hash == today.get(record.variant)


def records_evidence(records: Iterable[GpuRecord], variant: str, today: Mapping[str, str]) -> Seen:
    """What records say of a variant: "proven in a container on NVIDIA H200, driver 580.159.04"; `UNSEEN` without one.

    ``today`` has the hash of the inputs that each variant is made of today. A record of other inputs, or of inputs that
    it does not name, speaks of an earlier build, and says so; it is asked only where no record speaks of today's.
    Of those the strongest word is told, of equal ones the newest; a failure goes before every success.
    """
    found = [one for one in records_of_variant(records, variant) if not one.measures]
    current = [one for one in found if is_of_today(one, today)]
    chosen = current or found
    if not chosen:
        return Seen(UNSEEN)
    failed = [one for one in chosen if not one.ok]
    record = max(failed or chosen, key=_strength)
    notes = [*(["its packages"] if record.place == "packages" else []), *([] if current else [EARLIER])]
    noted = f" ({', '.join(notes)})" if notes else ""
    return Seen(_words(record) + noted, record.created[:10], _LINK.format(record.name) if record.name else "")


def _strength(record: GpuRecord) -> tuple[bool, int, str]:
    return record.served, list(_WORDS).index(record.place), record.created


def _words(record: GpuRecord) -> str:
    if not record.ok:
        names = [step.name for step in record.steps if step.verdict == "failed"]
        return f"{', '.join(names) or 'nothing passed'}: failed on {record.card}"
    said = _WORDS[record.place][0 if record.served else 1]
    words = _on_card(said, record.card, record.driver)
    return words if record.served else f"{words}: {_steps(record)}"


def _steps(record: GpuRecord) -> str:
    names = [step.name for step in record.steps if step.verdict == "passed"]
    more = len(names) - _STEPS_TOLD
    return ", ".join(names[:_STEPS_TOLD]) + (f" and {more} more" if more > 0 else "")


def _on_card(words: str, card: str, driver: str) -> str:
    return f"{words} {card}" + (f", driver {driver}" if driver else "")
