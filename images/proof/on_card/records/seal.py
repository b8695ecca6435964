"""The seal of a record: a question made of all that the record says, and the logits that the image gave to it.

Whoever changes a digit of a sealed record gets another question, whose logits are not the ones that stand there. They
can be worked out by anybody: the tiny model is no secret, and a processor gives them as well as a card. So a seal shows
that a record was not altered since, by hand or on its way, and that the image's torch computed; it is no signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TOKENS, POSITIONS = 64, 2
# Logits are float32 of a model of two layers; the canary's tolerance, relative to the largest.
TOLERANCE = 1e-4
# Shares of logits equal to float64's, rounded: torch's are at a few percent, on a processor as on a card.
TOO_EXACT = 0.5


def content_hash(record: Mapping[str, Any]) -> str:
    """64 hex digits over a record as JSON, without its seal: the seed of the question."""
    content = {key: value for key, value in record.items() if key != "seal"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def question(seed: str) -> list[int]:
    """Ids of `TOKENS` tokens of the tiny model, none of them special: drawn from ``seed`` alone."""
    from images.proof.tiny_model import tokenizer

    ordinary = len(tokenizer.vocabulary())
    found: list[int] = []
    for block in range(TOKENS):
        drawn = hashlib.sha256(f"{seed}:{block}".encode()).digest()
        found.append(int.from_bytes(drawn[:8], "little") % ordinary)
    return found


def pack_logits(logits: npt.NDArray[np.floating[Any]]) -> str:
    """Logits [`POSITIONS`, vocabulary] as text."""
    return base64.b64encode(logits.astype("<f4").tobytes()).decode()


def why_not_sealed(record: Mapping[str, Any]) -> str:
    """Why the seal of a record (as JSON) is not one of what it says; "" where it is."""
    import numpy as np

    from images.proof.tiny_model import reference

    seal = record["seal"]
    seed = content_hash(record)
    if seal["seed"] != seed:
        return f"what it says has the hash {seed[:12]}…, it was sealed with {seal['seed'][:12]}…: it was changed since"
    expected = reference.text_logits(question(seed))[-POSITIONS:]
    try:
        raw = base64.b64decode(seal["logits"], validate=True)
    except binascii.Error as error:
        return f"its logits are no base64: {error}"
    if len(raw) != expected.size * 4:
        return f"its logits have {len(raw)} bytes, not {expected.size * 4}"
    given = np.frombuffer(raw, dtype="<f4").reshape(expected.shape)
    distance = float(np.abs(given - expected).max() / np.abs(expected).max()) if np.isfinite(given).all() else np.inf
    if not distance <= TOLERANCE:
        return f"its logits are {distance:.1e} from the right ones, allowed is {TOLERANCE:.0e}"
    same = float((given == expected.astype("<f4")).mean())
    if same > TOO_EXACT:
        return f"{same:.0%} of its logits are right to the last bit, which float32 on a card never gives"
    return ""
