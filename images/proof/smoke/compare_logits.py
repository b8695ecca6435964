"""Compare what a model said: with golden tokens and logits, with a known answer; find degenerate output."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Enough repetitions to be sure: short answers such as "red" repeat nothing, prose repeats words, not this often.
REPEATS = 4
LONG = 12
SHARE = 0.8


@dataclass(frozen=True)
class ModelAnswer:
    """An answer: its text, its tokens (ids, or texts where a server tells no ids), their logprobs, and why it ended.

    ``top`` holds for each place the most likely tokens with their logprobs, as many as were asked for.
    """

    text: str
    tokens: tuple[int | str, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: str = ""
    top: tuple[Mapping[int | str, float], ...] = ()


def why_degenerate(output: Sequence[int | str] | str, logprobs: Sequence[float] = ()) -> str | None:
    """Why ``output`` (text, or tokens) is what a broken model says; None when it is not.

    "!" is id 0 of Qwen's vocabulary: a vision tower that overflows in float16 gives NaN, whose argmax is 0.
    """
    if any(not math.isfinite(value) for value in logprobs):
        return f"a logprob is not finite: {list(logprobs)[:8]}"
    if isinstance(output, str):
        return _degenerate_text(output)
    if not output:
        return "it said nothing"
    if all(token in (0, "!") for token in output):
        return f'only "!" (token 0), {len(output)} times: what an overflow in float16 looks like'
    return _repeats([str(token) for token in output], "token")


def _degenerate_text(text: str) -> str | None:
    stripped = "".join(text.split())
    if not stripped:
        return "it said nothing"
    if set(stripped) == {"!"}:
        return f'only "!", {len(stripped)} times: what an overflow in float16 looks like'
    if "�" in text:
        return f"it said bytes that are no text: {text[:40]!r}"
    if len(set(stripped)) == 1 and len(stripped) >= REPEATS:
        return f"one character repeated {len(stripped)} times: {text[:40]!r}"
    return _repeats(text.split(), "word")


def _repeats(parts: Sequence[str], kind: str) -> str | None:
    part, count = Counter(parts).most_common(1)[0]
    if len(set(parts)) == 1 and count >= REPEATS:
        return f"one {kind} repeated {count} times: {part[:40]!r}"
    if len(parts) >= LONG and count >= SHARE * len(parts):
        return f"one {kind} is {count} of {len(parts)}: {part[:40]!r}"
    period = _period(parts)
    if period:
        return f"the same {len(period)} {kind}s over and over: {' '.join(period)[:60]!r}"
    return None


def _period(parts: Sequence[str]) -> list[str] | None:
    """A short cycle of which all of ``parts`` consists, gone through `REPEATS` times or more."""
    for size in range(2, len(parts) // REPEATS + 1):
        if len(parts) >= LONG and all(parts[at] == parts[at - size] for at in range(size, len(parts))):
            return list(parts[:size])
    return None


def log_softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Natural-log probabilities of every token, for ``logits`` [tokens, vocabulary]."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    shifted: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return shifted


def why_not_golden(
    said: ModelAnswer, tokens: Sequence[int], texts: Sequence[str], logprobs: Sequence[float], tolerance: float
) -> str | None:
    """Why ``said`` is not the golden answer; None when it agrees.

    ``tokens`` and ``texts`` are the golden answer's, with its end token, which a server may leave out or tell as "";
    ``logprobs`` theirs. A token counts as the same by id, or by text where the server tells no ids; logprobs may
    differ by ``tolerance`` (absolute).
    """
    golden: list[tuple[int, str]] = list(zip(tokens, texts, strict=True))
    wanted = golden if len(said.tokens) >= len(golden) else golden[:-1]
    own = said.tokens
    if own and len(own) == len(golden) and own[-1] == "":
        own = (*own[:-1], texts[-1])
    same = len(own) == len(wanted) and all(token in pair for token, pair in zip(own, wanted, strict=True))
    if not same:
        return f"said {list(said.tokens)} ({said.text!r}), golden {golden}"
    if said.finish != "stop":
        return f"it did not stop by itself: finish_reason is {said.finish!r}"
    if len(said.logprobs) != len(said.tokens):
        return f"{len(said.logprobs)} logprobs for {len(said.tokens)} tokens"
    far = [
        f"{texts[at]!r} {own:.4f}, golden {right:.4f}"
        for at, (own, right) in enumerate(zip(said.logprobs, logprobs, strict=False))
        if not abs(own - right) <= tolerance
    ]
    return f"logprobs further than {tolerance} from golden: {'; '.join(far)}" if far else None


def greatest_distance(said: ModelAnswer, table: npt.NDArray[np.float64], ids: Mapping[str, int]) -> float:
    """The greatest distance of any told logprob (chosen or runner-up) from its golden one.

    ``table`` holds golden logprobs [tokens, vocabulary]; ``ids`` maps texts of tokens to ids, for servers that tell
    texts. The runners-up matter: the chosen token leads so far that its own logprob is near 0 in any case. Texts that
    are no known token (pieces of a character) are left out; inf for a server that told no runners-up.
    """
    far = [
        abs(logprob - float(row[token if isinstance(token, int) else ids[token]]))
        for logprobs, row in zip(said.top, table, strict=False)
        for token, logprob in logprobs.items()
        if isinstance(token, int) or token in ids
    ]
    return max(far, default=float("inf"))


def contains_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether ``text`` holds one of ``answers`` as words of their own, in any case: "red" is not in "rendered"."""
    return any(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) for answer in answers)


def why_wrong(text: str, answers: Sequence[str]) -> str | None:
    """Why ``text`` is no right answer to a question whose answer is one of ``answers``; None when it is."""
    if broken := why_degenerate(text):
        return broken
    if not contains_answer(text, answers):
        return f"none of {', '.join(answers)} is in the answer: {text[:200]!r}"
    return None
