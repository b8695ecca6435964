"""What an image decides on a card that is not at hand: its server is made to believe that a newer card is that one.

The rule: it is told as acted, with the card that was really there, and never as a run on the card that is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.acting.cards import ActedCard as ActedCard
    from images.proof.acting.cards import acted_card as acted_card
    from images.proof.acting.containers import ACTED as ACTED
    from images.proof.acting.containers import acted_env as acted_env
else:
    __getattr__ = face(__name__, __file__)
