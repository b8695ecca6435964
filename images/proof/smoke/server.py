"""Level 4: when a server can be tried, how it is started, what it is asked, what it should answer. Pure."""

from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from images.proof.smoke.compare_logits import log_softmax
from images.proof.smoke.expectation import Expectation
from images.proof.tiny_model import QWEN2_5, picture, tokenizer

GOLDEN = QWEN2_5.golden
# Greatest allowed distance of a logprob from the golden one, which is float32's; here activations are bfloat16 or
# float16. The chosen token's is near 0 whatever happens, so the runners-up tell more: they lie 5 to 15 below.
# Measured with vLLM on a CPU: chosen 0.0006, runners-up 0.021; bfloat16 throughout may come to 0.2.
TOLERANCE = 0.05
RUNNER_UP_TOLERANCE = 0.5
TINY = QWEN2_5.name
MAX_LENGTH = 2048
NO_CARD = "no card"
NOT_A_PICTURE = "data:image/png;base64," + base64.b64encode(b"this is no picture").decode()


@dataclass(frozen=True)
class Golden:
    """A conversation and its golden answer: text, tokens (ids and texts, the end token last) and the logprobs.

    ``table`` holds natural-log probabilities [tokens, vocabulary].
    """

    name: str
    messages: tuple[dict[str, Any], ...]
    pictures: int
    text: str
    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    table: npt.NDArray[np.float64] = field(repr=False)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Of the answer's own tokens."""
        return tuple(float(self.table[at, token]) for at, token in enumerate(self.tokens))


def why_not_served(expectation: Expectation, gpus: bool) -> str | None:
    """Why the server of this image cannot be tried here; None when it can.

    A CUDA build of vLLM starts on a card only; the transformers server computes on the CPU where there is none.
    """
    if expectation.cuda is not None and expectation.backend == "vllm" and not gpus:
        return NO_CARD
    if expectation.backend == "vllm" and expectation.archs == ("7.0",):
        return "vLLM has no AWQ kernels for 7.0"
    return None


def start_arguments(model: str, name: str) -> list[str]:
    """What follows the image's entry point, which adds the image's own default arguments."""
    return ["--model", model, "--served-model-name", name, "--max-model-len", str(MAX_LENGTH)]


def pictures_per_request(arguments: Sequence[str]) -> int:
    """How many pictures one request may hold, by the flags that an image starts its server with.

    The flag is vLLM's, as JSON or, before 0.8, as "image=1"; without it as many as there are.
    """
    limit = dict(pairwise(arguments)).get("--limit-mm-per-prompt", "")
    number = re.search(r"image\W+(\d+)", limit)
    return int(number[1]) if number else sys.maxsize


def read_golden(text: str) -> tuple[Golden, ...]:
    """The golden answers from golden.json, with pictures as data: URLs."""
    data = json.loads(text)
    return tuple(_golden(case, data["pictures"]) for case in data["cases"])


def _golden(case: Mapping[str, Any], pictures: Mapping[str, Mapping[str, Any]]) -> Golden:
    raw = zlib.decompress(base64.b64decode(case["logits"]))
    logits = np.frombuffer(raw, dtype="<f4").reshape(len(case["tokens"]), -1)
    return Golden(
        name=case["name"],
        messages=_messages(case["messages"], [pictures[name] for name in case["pictures"]]),
        pictures=len(case["pictures"]),
        text=case["text"],
        tokens=tuple(case["tokens"]),
        texts=token_texts(case["tokens"]),
        table=log_softmax(logits),
    )


def _messages(
    messages: Sequence[Mapping[str, Any]], pictures: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """The golden messages in the API's form: each {type: image} part becomes an image_url."""
    left = iter(pictures)

    def part(content: Mapping[str, Any]) -> dict[str, Any]:
        if content["type"] != "image":
            return dict(content)
        drawn = next(left)
        return picture_part(picture.png(drawn["colour"], drawn["width"], drawn["height"]))

    return tuple(
        {**message, "content": content if isinstance(content := message["content"], str) else [*map(part, content)]}
        for message in messages
    )


def picture_part(png: bytes) -> dict[str, Any]:
    """A message's part that holds a picture."""
    return {"type": "image_url", "image_url": {"url": picture.as_data_url(png)}}


def question_messages(text: str, url: str) -> list[dict[str, Any]]:
    """One user's message: a picture by URL, then a text."""
    return [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]}
    ]


def token_texts(tokens: Sequence[int]) -> tuple[str, ...]:
    """Texts of the tiny tokenizer's ids, blanks as blanks."""
    names = {index: text for text, index in token_ids().items()}
    return tuple(names[token] for token in tokens)


def token_ids() -> dict[str, int]:
    """The tiny tokenizer's ids by text."""
    return {text.replace("Ġ", " "): index for text, index in tokenizer.vocabulary().items()} | tokenizer.special_ids()
