"""Programs that an image's own Python runs, each a process of its own; what they found out is JSON.

The rule: they need the image's packages and this checkout beside them, and nothing of the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.on_card.inside import call_stand_ins as call_stand_ins
    from images.proof.on_card.inside import prefill as prefill
else:
    __getattr__ = face(__name__, __file__)
