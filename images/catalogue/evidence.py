"""On what an image was seen to run, in a few words: by the catalogue that has it, else by records of runs on cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from images.catalogue.model import PublishedImage
from images.proof.on_card import GpuRecord, records_of_variant
from images.proof.smoke import LevelName

# What a level has shown when no card was there.
_WITHOUT_CARD: Mapping[LevelName, str] = {"audit": "audited", "canary": "CPU canary", "server": "CPU server"}
UNSEEN = "not yet on a card"


def image_evidence(image: PublishedImage) -> str:
    """ "tested-on Tesla T4, driver 535.104.05", by the highest level that ran on a card; else "audited, CPU canary"."""
    passed = [proof for proof in image.evidence if proof.status == "passed"]
    if on_card := [proof for proof in passed if proof.card]:
        return _tested(on_card[-1].card or "", on_card[-1].driver or "")
    return ", ".join(_WITHOUT_CARD[proof.level] for proof in passed if proof.level in _WITHOUT_CARD) or "checked inside"


def records_evidence(records: Iterable[GpuRecord], variant: str) -> str:
    """What the newest record of a variant says: "tested-on NVIDIA H200, driver 580.159.04"; `UNSEEN` without one.

    A run with the image's packages on a host without an engine says so, and a failure goes before a success.
    """
    sorted_records = sorted(records_of_variant(records, variant), key=lambda record: (record.ok, record.created))
    if not sorted_records:
        return UNSEEN
    record = next((one for one in sorted_records if not one.ok), sorted_records[-1])
    where = " (its packages)" if record.place == "packages" else ""
    if record.ok:
        return _tested(record.card, record.driver) + where
    failed = [step.name for step in record.steps if step.verdict == "failed"]
    return f"{', '.join(failed) or 'nothing passed'}: failed on {record.card}{where}"


def _tested(card: str, driver: str) -> str:
    return f"tested-on {card}" + (f", driver {driver}" if driver else "")
