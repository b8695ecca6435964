"""The proof on a real card, and the records that it leaves in `records/cards`.

The rule: the programs need nothing but Python and the image's packages; a step that did not run says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.on_card import backends as backends
    from images.proof.on_card import proof as proof
    from images.proof.on_card import records as records
    from images.proof.on_card import wrong_arch as wrong_arch
    from images.proof.on_card.answers import CASES as CASES
    from images.proof.on_card.answers import messages as messages
    from images.proof.on_card.answers import noise_message as noise_message
    from images.proof.on_card.lighter_containers import NO_MULTICAST as NO_MULTICAST
    from images.proof.on_card.lighter_containers import gpus_of as gpus_of
    from images.proof.on_card.lighter_containers import labels_of as labels_of
    from images.proof.on_card.lighter_containers import nvidia_smi as nvidia_smi
    from images.proof.on_card.records import FORKED as FORKED
    from images.proof.on_card.records import SPAWNED as SPAWNED
    from images.proof.on_card.records import ActedAs as ActedAs
    from images.proof.on_card.records import ActedRun as ActedRun
    from images.proof.on_card.records import Figure as Figure
    from images.proof.on_card.records import GpuRecord as GpuRecord
    from images.proof.on_card.records import Place as Place
    from images.proof.on_card.records import acted_runs as acted_runs
    from images.proof.on_card.records import kept_steps as kept_steps
    from images.proof.on_card.records import read_gpu_record as read_gpu_record
    from images.proof.on_card.records import read_gpu_records as read_gpu_records
    from images.proof.on_card.records import read_with_data as read_with_data
    from images.proof.on_card.records import records_of_variant as records_of_variant
    from images.proof.on_card.runs import Failed as Failed
    from images.proof.on_card.runs import NotRun as NotRun
    from images.proof.on_card.runs import Run as Run
    from images.proof.on_card.sent_in import Finding as Finding
    from images.proof.on_card.sent_in import Known as Known
    from images.proof.on_card.sent_in import PublishedAs as PublishedAs
    from images.proof.on_card.sent_in import check_record as check_record
    from images.proof.on_card.server import MARKS as MARKS
    from images.proof.on_card.server import stream as stream
else:
    __getattr__ = face(__name__, __file__)
