"""The page's settings and limits as typed, said and handed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.commands.demo import DemoOptions
from images.core.errors import UsageError
from images.run.demo.settings import Answering, Limits, Settings, format_size, read_settings, read_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("10MB", 10_000_000),
        ("500 kB", 500_000),
        ("1.5 GB", 1_500_000_000),
        ("123", 123),
        (" 7b ", 7),
        ("2MB", 2_000_000),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert read_size(text) == count


@pytest.mark.parametrize("text", ["", "MB", "10 MiB", "-1MB", "1e9", "ten", "1,5GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size") as caught:
        read_size(text)
    assert caught.value.do == "write it as 10MB, 500kB or 1.5GB"


@pytest.mark.parametrize(
    ("count", "text"),
    [(10_000_000, "10 MB"), (12_345_678, "12.3 MB"), (999, "999 B"), (340_000, "340 kB"), (2_000_000_000, "2 GB")],
)
def test_sizes_as_said(count: int, text: str) -> None:
    assert format_size(count) == text


def test_settings_survive_the_way_to_the_page() -> None:
    limits, behind = Limits(pictures=9), Answering("cu124-x", "Tesla T4")
    made = Settings("http://127.0.0.1:8000", 'a "model"', "127.0.0.1", 7860, Path("/x/uploads"), limits, behind)
    assert read_settings(made.to_json()) == made


def words(**changes: str | int) -> DemoOptions:
    typed: dict[str, str | int] = {
        "server": "",
        "model": "",
        "host": "",
        "port": 1,
        "max_picture": "10MB",
        "max_video": "60MB",
        "max_pictures": 8,
        "max_frames": 8,
    }
    return DemoOptions(**(typed | changes))  # type: ignore[arg-type]


def test_what_comes_in_at_all_is_the_larger_limit() -> None:
    assert words().limits().upload_bytes == 60_000_000
    assert words(max_picture="70MB").limits().upload_bytes == 70_000_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_picture": "0"}, "picture_bytes is 0"),
        ({"max_frames": 0}, "frames is 0"),
        ({"max_pictures": 4}, "a video of 8 frames is more than the 4 pictures of one question"),
    ],
)
def test_limits_that_make_no_sense(changes: dict[str, str | int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        words(**changes).limits()


def test_the_limits_are_told_in_a_line() -> None:
    assert Limits().told() == (
        "pictures up to 10 MB and 50 million pixels; videos up to 60 MB, of which 8 frames are sent; "
        "8 pictures in a question"
    )


@pytest.mark.parametrize(
    ("behind", "text"),
    [
        (Answering("cu124-x", "Tesla T4"), "cu124-x on Tesla T4"),
        (Answering("cu124-x"), "cu124-x"),
        (Answering(), ""),
    ],
)
def test_what_answers_is_told_as_far_as_it_is_known(behind: Answering, text: str) -> None:
    assert str(behind) == text
