"""The size a picture is brought to, before it is opened; tests/inside/test_server.py compares it with transformers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
from picture_size import resized  # type: ignore[import-not-found,unused-ignore]

SIDE = st.integers(1, 20_000)


@pytest.mark.parametrize(
    ("size", "after"),
    [((56, 56), (56, 56)), ((224, 224), (224, 224)), ((8000, 8000), (3584, 3584)), ((10, 10), (56, 56)),
     ((1920, 1080), (1932, 1092)), ((20_000, 200), (19_992, 196)), ((8001, 7000), (3808, 3332))],
)  # fmt: skip
def test_sizes_as_the_published_processor_makes_them(size: tuple[int, int], after: tuple[int, int]) -> None:
    assert resized(*size, 28, 3136, 12_845_056) == after


@given(SIDE, SIDE)
def test_sides_are_multiples_and_the_pixels_within_the_limits(width: int, height: int) -> None:
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(ValueError, match="longer side"):
            resized(width, height, 28, 3136, 12_845_056)
        return
    wide, high = resized(width, height, 28, 3136, 12_845_056)
    assert wide % 28 == high % 28 == 0 and 3136 <= wide * high <= 12_845_056
