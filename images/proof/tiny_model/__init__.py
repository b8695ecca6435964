"""Tiny models of each family with known answers: its checkpoint, pictures, questions, golden logits.

The rule: made anew it is the same, byte for byte; it runs inside images, so it imports little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.tiny_model import checkpoint as checkpoint
    from images.proof.tiny_model import golden as golden
    from images.proof.tiny_model import picture as picture
    from images.proof.tiny_model import qwen2_5_vl as qwen2_5_vl
    from images.proof.tiny_model import tokenizer as tokenizer
    from images.proof.tiny_model.checkpoint import FAMILIES as FAMILIES
    from images.proof.tiny_model.checkpoint import QWEN2_5 as QWEN2_5
    from images.proof.tiny_model.checkpoint import Tiny as Tiny
    from images.proof.tiny_model.checkpoint import write_checkpoint as write_checkpoint
    from images.proof.tiny_model.picture import as_data_url as as_data_url
    from images.proof.tiny_model.plain import write_plain as write_plain
    from images.proof.tiny_model.question import Question as Question
    from images.proof.tiny_model.question import questions as questions
else:
    __getattr__ = face(__name__, __file__)
