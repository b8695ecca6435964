"""The proof of an image on a real card: `prove.py` has its steps, started in a container or in the unpacked image.

The rule: the programs need nothing but Python and the image's packages; a step that did not run says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.on_card import proof as proof
    from images.proof.on_card import prove as prove
    from images.proof.on_card import without_engine as without_engine
    from images.proof.on_card.backends import check_shaped as check_shaped
    from images.proof.on_card.backends import check_tiny as check_tiny
else:
    __getattr__ = face(__name__, __file__)
