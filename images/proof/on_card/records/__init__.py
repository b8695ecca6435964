"""Records of runs on cards, those in `records/cards` and those that somebody sent in: read, sealed, checked.

The rule: a record is bounded before it is read, and says what was seen, where, and of which image; the rest is "".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.on_card.records.reading import kept_steps as kept_steps
    from images.proof.on_card.records.reading import read_gpu_record as read_gpu_record
    from images.proof.on_card.records.reading import read_gpu_records as read_gpu_records
    from images.proof.on_card.records.reading import read_with_data as read_with_data
    from images.proof.on_card.records.record import FORKED as FORKED
    from images.proof.on_card.records.record import SPAWNED as SPAWNED
    from images.proof.on_card.records.record import ActedAs as ActedAs
    from images.proof.on_card.records.record import ActedRun as ActedRun
    from images.proof.on_card.records.record import Figure as Figure
    from images.proof.on_card.records.record import Given as Given
    from images.proof.on_card.records.record import GpuRecord as GpuRecord
    from images.proof.on_card.records.record import Place as Place
    from images.proof.on_card.records.record import Seal as Seal
    from images.proof.on_card.records.record import Step as Step
    from images.proof.on_card.records.record import Verdict as Verdict
    from images.proof.on_card.records.record import acted_runs as acted_runs
    from images.proof.on_card.records.record import records_of_variant as records_of_variant
    from images.proof.on_card.records.seal import POSITIONS as POSITIONS
    from images.proof.on_card.records.seal import content_hash as content_hash
    from images.proof.on_card.records.seal import pack_logits as pack_logits
    from images.proof.on_card.records.seal import question as question
    from images.proof.on_card.records.sent_in import Finding as Finding
    from images.proof.on_card.records.sent_in import Known as Known
    from images.proof.on_card.records.sent_in import PublishedAs as PublishedAs
    from images.proof.on_card.records.sent_in import check_record as check_record
else:
    __getattr__ = face(__name__, __file__)
