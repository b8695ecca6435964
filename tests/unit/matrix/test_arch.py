from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.core.errors import UsageError
from images.matrix.arch import KNOWN_ARCHS, Arch, covers, join_sm, parse_arch


@pytest.mark.parametrize("text", ["7.5", "75", "sm_75", "sm75", "SM_75", " 7.5 "])
def test_every_spelling_of_a_capability_is_read(text: str) -> None:
    assert parse_arch(text) == Arch(7, 5)


def test_two_digit_majors_suffixes_and_ptx() -> None:
    assert parse_arch("120") == parse_arch("12.0") == Arch(12, 0)
    assert parse_arch("9.0a") == Arch(9, 0, "a")
    assert parse_arch("8.0+PTX") == Arch(8, 0, "", True)


@pytest.mark.parametrize("text", ["abc", "", "7", "7.5.1", "sm_", "7,5", "750", "7.5\n8.6", "$(id)"])
def test_what_is_no_capability_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="capability"):
        parse_arch(text)


def test_a_capability_no_card_has_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        parse_arch("7.6")
    assert caught.value.exit_code == 2
    assert "nearest: 7.5" in caught.value.do


@pytest.mark.parametrize(
    ("code", "card", "runs"),
    [
        ("8.0", "8.6", True),
        ("8.6", "8.0", False),
        ("8.0", "9.0", False),
        ("7.0", "7.5", True),
        ("9.0a", "9.0", True),
        ("10.0a", "10.3", False),
        ("12.0f", "12.1", True),
        ("8.0+PTX", "12.0", True),
        ("8.0+PTX", "7.5", False),
    ],
)
def test_which_code_runs_on_which_card(code: str, card: str, runs: bool) -> None:
    assert parse_arch(code).runs_on(parse_arch(card)) is runs


def test_a_list_covers_a_card_if_one_of_it_does() -> None:
    assert covers([parse_arch("7.5"), parse_arch("8.0")], parse_arch("8.9"))
    assert not covers([], parse_arch("8.9"))
    assert join_sm([parse_arch("8.0"), parse_arch("12.0")]) == "sm80_120"


@given(st.sampled_from(KNOWN_ARCHS), st.sampled_from(["", "a", "f"]), st.booleans())
def test_printing_and_reading_agree(known: str, suffix: str, ptx: bool) -> None:
    text = f"{known}{suffix}{'+PTX' if ptx else ''}"
    assert str(parse_arch(text)) == text


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_as_usage(text: str) -> None:
    try:
        assert parse_arch(text).capability in KNOWN_ARCHS
    except UsageError as error:
        assert error.do
