"""How fast an answer came."""

from __future__ import annotations

import pytest

from images.run.demo.figures import Stopwatch


def watched(times: list[float], tokens: int) -> str:
    """What is told of pieces that came at these seconds after the question."""
    now = iter([100.0, *(100.0 + time for time in times)])
    watch = Stopwatch(lambda: next(now))
    for _ in times:
        watch.piece()
    watch.tokens = tokens
    return watch.told()


@pytest.mark.parametrize(
    ("times", "tokens", "told"),
    [
        ([0.424, 0.9, 1.424], 39, "0.42 s to the first token, then 38 tokens/s; 39 tokens"),
        ([12.3, 14.3], 3, "12 s to the first token, then 1.0 tokens/s; 3 tokens"),
        ([0.5], 1, "0.50 s to the first token; 1 token"),
        ([0.5, 0.51], 9, "0.50 s to the first token; 9 tokens"),  # all at once: that is no rate
        ([1.0, 1.5, 2.0], 0, "1.0 s to the first token, then about 2.0 tokens/s; about 3 tokens"),
        ([], 0, ""),
    ],
)
def test_what_is_told(times: list[float], tokens: int, told: str) -> None:
    assert watched(times, tokens) == told
