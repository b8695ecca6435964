"""The checkpoint of 3B's published shape: random weights that have learnt three answers.

The rule: its answers are known beforehand, and lead by so much that every right engine gives them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.on_card.shaped.answers import CASES as CASES
    from images.proof.on_card.shaped.answers import answer as answer
    from images.proof.on_card.shaped.answers import messages as messages
    from images.proof.on_card.shaped.answers import noise_message as noise_message
    from images.proof.on_card.shaped.prompt import prompt_inputs as prompt_inputs
else:
    __getattr__ = face(__name__, __file__)
