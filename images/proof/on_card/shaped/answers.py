"""What the 3B-shaped checkpoint is asked, and what it has learnt to answer. No torch: the client's side needs this."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from images.proof.tiny_model import picture, tokenizer

SIDE = 1000
END = "<|im_end|>"
# Question, picture's colour (none: text only), answer in tokens of the tiny tokenizer.
CASES: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "text": ("Say hello", None, ("Hello", " from", " a", " tiny", " model", END)),
    "picture-red": ("What colour is this?", "red", ("red", " model", " from", " a", END)),
    "picture-blue": ("What colour is this?", "blue", ("blue", " tiny", " model", " from", END)),
}


def messages(name: str) -> list[dict[str, Any]]:
    """A case's question in the API's form; its picture is a square of 1000 x 1000 pixels."""
    text, colour, _ = CASES[name]
    url = picture.data_url(colour, SIDE, SIDE) if colour else None
    return _message(text, url)


def noise_message(seed: int) -> list[dict[str, Any]]:
    """The same question about a picture that no other seed has: coarse noise, so that it is quickly made and sent."""
    coarse = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    pixels = coarse.repeat(SIDE // 20, axis=0).repeat(SIDE // 20, axis=1)
    return _message("What colour is this?", picture.as_data_url(picture.encode(pixels.tobytes(), SIDE, SIDE)))


def _message(text: str, url: str | None) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if url:
        parts.insert(0, {"type": "image_url", "image_url": {"url": url}})
    return [{"role": "user", "content": parts}]


def picture_bytes(name: str) -> list[bytes]:
    """The PNG files of a case."""
    return [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in messages(name)[0]["content"][:-1]]


def answer(name: str) -> list[int]:
    """Ids of a case's answer, the end token last."""
    ids = {text.replace("Ġ", " "): index for text, index in tokenizer.vocabulary().items()} | tokenizer.special_ids()
    return [ids[text] for text in CASES[name][2]]
