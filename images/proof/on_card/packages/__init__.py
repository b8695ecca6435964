"""Packages on a host with a card, without an image: torch that was slimmed, attention that was compiled.

The rule: what is installed is never written to, and each is held against the untouched package or float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.on_card.packages.slim_identity import slim_copy as slim_copy
    from images.proof.on_card.packages.slim_worker import make_inputs as make_inputs
    from images.proof.on_card.packages.slim_worker import make_model as make_model
else:
    __getattr__ = face(__name__, __file__)
