"""Capabilities as people type them: every form is read, and what no card has is refused with the nearest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.core.errors import UsageError
from images.device_code.capability import KNOWN, CapabilityError, Typed, read_capability
from images.device_code.choose import Wanted, parse_wanted
from images.device_code.verdict import parse_capability
from images.matrix.arch import parse_arch


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("7.5", Typed(7, 5)),
        ("75", Typed(7, 5)),
        ("SM_75", Typed(7, 5)),
        ("sm120", Typed(12, 0)),
        ("compute_90a", Typed(9, 0, "a")),
        ("10.0f", Typed(10, 0, "f")),
        ("7.5+PTX", Typed(7, 5, ptx=True)),
        ("sm_80+ptx", Typed(8, 0, ptx=True)),
    ],
)
def test_forms(text: str, typed: Typed) -> None:
    assert read_capability(text) == typed


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("12.9", "12.1"),
        ("7.9", "8.0"),
        ("2.5", "5.0"),
        ("99.9", "12.1"),
        ("10.1", "11.0"),
        ("7.6", "7.5"),
        ("7", "7.0"),
        ("129", "12.1"),
    ],
)
def test_what_no_card_has_is_refused_with_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        read_capability(text)
    assert caught.value.nearest == nearest
    assert f"nearest: {nearest}" in str(caught.value)


@pytest.mark.parametrize("text", ["", " ", "sm_", "abc", "7,5", "7.5.1", "\u0667.\u0665", "7.5\n8.6", "9" * 5000])
def test_what_is_none_is_refused_shortly(text: str) -> None:
    with pytest.raises(CapabilityError, match="not a compute capability") as caught:
        read_capability(text)
    assert len(str(caught.value)) < 400


@given(
    st.one_of(st.text(max_size=8), st.from_regex(r"(sm_|compute_)?[0-9]{1,3}(\.[0-9])?[af]?(\+PTX)?", fullmatch=True))
)
def test_every_reader_takes_and_refuses_the_same(text: str) -> None:
    try:
        typed = read_capability(text)
    except CapabilityError:
        for read in (parse_capability, parse_wanted):
            with pytest.raises(ValueError, match="capability"):
                read(text)
        with pytest.raises(UsageError, match="capability"):
            parse_arch(text)
        return
    assert f"{typed.major}.{typed.minor}" in KNOWN
    assert parse_capability(text) == (typed.major, typed.minor)
    assert parse_wanted(text) == Wanted(typed.number, typed.ptx)
    arch = parse_arch(text)
    assert (arch.major, arch.minor, arch.suffix, arch.ptx) == (typed.major, typed.minor, typed.suffix, typed.ptx)
