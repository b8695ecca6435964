"""A pull at 100 Mbit/s: the arithmetic, the rows of a real one, and what is no measurement."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.pull import Pulled, check_room, check_wire, rows_by_arithmetic, rows_of, seconds_by_arithmetic
from bench.record import BenchRecord, Row
from images.core.errors import CheckFailed, UsageError
from images.docker.facts import ImageFacts
from tests.unit.bench.test_page import QUIET

SIZES = BenchRecord(
    "sizes",
    QUIET,
    (
        Row("sizes", "x-sm75: all, zstd", 1450.0, 3323.0, "MB", "untouched", image="x-sm75@ab"),
        Row("sizes", "x-sm75: all, gzip", 2518.0, 4037.0, "MB", "untouched"),
        Row("sizes", "y: all, zstd", 900.0, None, "MB"),
        Row("sizes", "z: all, zstd", None, None, "MB", why="not built"),
    ),
)
SEEN = Pulled(packed=900_000_000, received=900_400_000, pull=80.0, start=30.0)


def test_the_seconds_are_bytes_by_the_lines_rate() -> None:
    assert seconds_by_arithmetic(12_500_000) == 1.0
    assert seconds_by_arithmetic(1000, rate=100) == 10.0


def test_each_kept_size_gives_seconds_beside_the_untouched_packages() -> None:
    rows = list(rows_by_arithmetic([replace(SIZES, bench="plan"), SIZES]))
    assert [(row.measures.partition(":")[0], row.ours, row.peer) for row in rows] == [
        ("x-sm75", 116.0, 3323.0 / 12.5),
        ("y", 72.0, None),
    ]
    assert rows[0].image == "x-sm75@ab"
    assert {row.unit for row in rows} == {"s"}


def test_a_pull_has_its_seconds_beside_the_arithmetic_and_its_bytes_beside_the_layers() -> None:
    pulled, wire, start, whole = rows_of("cpu", "cpu@12", SEEN)
    assert (pulled.ours, pulled.peer, pulled.headline) == (80.0, 72.0, True)
    assert (wire.ours, wire.peer) == (900.4, 900.0)
    assert start.ours == 30.0
    assert (whole.ours, whole.headline) == (110.0, True)
    assert {row.image for row in (pulled, wire, start, whole)} == {"cpu@12"}


def test_a_server_that_cannot_run_here_is_told_as_not_run() -> None:
    *_, start = rows_of("sm90", "", replace(SEEN, start=None, why="no card"))
    assert (start.ours, start.why) == (None, "no card")


@pytest.mark.parametrize("received", [899_999_999, 947_000_000, 1_800_000_000])
def test_a_pull_of_less_or_of_much_more_than_its_layers_is_no_measurement(received: int) -> None:
    with pytest.raises(CheckFailed, match=f"{received} bytes came"):
        check_wire(replace(SEEN, received=received))
    check_wire(SEEN)


def test_a_disk_without_room_is_told_before_anything_is_begun() -> None:
    facts = cast("ImageFacts", SimpleNamespace(size=3_000_000_000))
    check_room(facts, 9_000_000_000)
    with pytest.raises(UsageError, match="too little room") as caught:
        check_room(facts, 8_000_000_000)
    assert "TMPDIR" in caught.value.do


def test_what_a_variant_needs_is_said_where_it_is_listed() -> None:
    from bench import frame
    from bench.pull import register

    known: Any = dict(frame.HEAVY)
    try:
        register(cast("Any", SimpleNamespace()))
        assert "root on Debian" in frame.HEAVY["pull"]
    finally:
        frame.HEAVY.clear()
        frame.HEAVY.update(known)
        frame.BENCHES.pop("pull", None) if "pull" not in known else None
