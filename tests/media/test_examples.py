"""The pictures that the page offers: drawn by their script, small, and taken by the page itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from images.run.demo.pictures import read_picture
from images.run.demo.settings import Limits
from tests.golden.make_examples import FOLDER, PICTURES

LIMITS = Limits()


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_what_its_script_draws(name: str) -> None:
    with Image.open(FOLDER / name) as kept:
        drawn = PICTURES[name]()
        assert kept.size == drawn.size
        assert kept.convert("RGB").tobytes() == drawn.convert("RGB").tobytes()


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_small_and_sent_as_it_is(name: str) -> None:
    path: Path = FOLDER / name
    assert path.stat().st_size < 10_000
    sent = read_picture(path, "PNG", LIMITS.pixels, LIMITS.side)
    assert (sent.width, sent.height, sent.media) == (480, 360, "image/png")


def test_no_other_picture_lies_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PICTURES)
