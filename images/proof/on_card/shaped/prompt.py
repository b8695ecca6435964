"""What the 3B-shaped checkpoint is asked, as the model itself takes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from images.proof.on_card.shaped.answers import CASES, picture_bytes

ROOTFS = Path(__file__).parents[4] / "dockerfiles" / "rootfs" / "opt" / "cardstock"


def prompt_inputs(engine: Any, name: str, more: list[int]) -> dict[str, Any]:
    """A case's prompt followed by the ids ``more``, as keyword arguments of the model's forward."""
    import torch

    sys.path.insert(0, str(ROOTFS))
    from chat import Chat, Image, Message, Sampling  # type: ignore[import-not-found,unused-ignore]

    text, colour, _ = CASES[name]
    parts = (Image(url=""), text) if colour else (text,)
    chat = Chat("", (Message("user", parts),), Sampling(), stream=False, usage=False)
    prompt = engine.prepare(chat, picture_bytes(name))
    inputs = {key: value.to(engine.device) for key, value in prompt.inputs.items()}
    extra = torch.tensor([more], dtype=torch.long, device=engine.device)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], extra], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(extra).int()], 1)
    return inputs
