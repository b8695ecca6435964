"""dpkg's order of versions, and ranges."""

from __future__ import annotations

from itertools import pairwise

import pytest

from images.advisories.debian_version import DebianVersion, in_debian_range, parse_debian_range

# Each is older than the next: the examples of deb-version(7), epochs, tildes, revisions, letters before signs.
RISING = [
    "0.9",
    "1.0~~",
    "1.0~~a",
    "1.0~",
    "1.0~rc1-1",
    "1.0",
    "1.0-1",
    "1.0-1+deb12u1",
    "1.0-1+deb12u2",
    "1.0-1+deb12u10",
    "1.0a",
    "1.0+b",
    "1.2",
    "1.10",
    "1:0.1",
]


@pytest.mark.parametrize(("older", "newer"), list(pairwise(RISING)))
def test_versions_are_in_dpkgs_order(older: str, newer: str) -> None:
    assert DebianVersion(older) < DebianVersion(newer)
    assert DebianVersion(newer) > DebianVersion(older)


def test_versions_that_differ_in_zeros_are_equal() -> None:
    assert DebianVersion("1.0") == DebianVersion("1.00")
    assert DebianVersion("0:1.0") == DebianVersion("1.0-0")
    assert hash(DebianVersion("1.0")) == hash(DebianVersion("1.00"))
    assert DebianVersion("1.0") != "1.0"


def test_ranges() -> None:
    assert in_debian_range("2.36-9+deb12u9", "<2.36-9+deb12u10")
    assert not in_debian_range("2.36-9+deb12u10", "<2.36-9+deb12u10")
    assert in_debian_range("1.5", ">=1.2, <2")
    assert in_debian_range("1.5", "==1.5")
    assert not in_debian_range("1.5", ">1.5")
    assert in_debian_range("1.5", "<=1.5")


@pytest.mark.parametrize("text", ["", "1.2", "<", "<1.2 3", "~=1", "<1_2"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_debian_range(text)
