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
    from images.proof.on_card.records import FORKED as FORKED
    from images.proof.on_card.records import SPAWNED as SPAWNED
    from images.proof.on_card.records import ActedAs as ActedAs
    from images.proof.on_card.records import ActedRun as ActedRun
    from images.proof.on_card.records import Figure as Figure
    from images.proof.on_card.records import GpuRecord as GpuRecord
    from images.proof.on_card.records import acted_runs as acted_runs
    from images.proof.on_card.records import read_gpu_records as read_gpu_records
    from images.proof.on_card.records import records_of_variant as records_of_variant
else:
    __getattr__ = face(__name__, __file__)
