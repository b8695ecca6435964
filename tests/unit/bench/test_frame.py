"""The frame of the measurements; no test here looks at a real clock."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from bench.frame import BENCHES, HEAVY, bench, cells, median_seconds, medians, number, run_benches
from bench.record import BenchMachine, BenchRecord, Row, RunConditions, read_records
from images.core.errors import NothingSelected, UsageError
from images.core.report import Report


@pytest.fixture
def report() -> Report:
    return Report(io.StringIO(), io.StringIO(), clock=lambda: 0.0)


AROUND = RunConditions(
    machine=BenchMachine("A processor", 2, 8_000_000_000, "Linux", "3.11.7"),
    busy=0.0,
    date="2026-11-21T12:00:00Z",
    revision="0123456789ab",
    inputs="ba9876543210",
)
HALF = Row("halves", "half the work", 0.5, 1.0, "s", "all of it", headline=True)
ALONE = Row("halves", "bytes", 12345.0, None, "B", image="cpu@0123")
WITHOUT = Row("halves", "on two cards", None, None, "", why="no card here")


def halves() -> Iterable[Row]:
    yield HALF
    yield ALONE


def broken() -> Iterable[Row]:
    yield from halves()
    raise RuntimeError("half-way")


def impossible() -> Iterable[Row]:
    raise NothingSelected("nothing is built")


def around() -> RunConditions:
    return AROUND


def test_rows_are_kept_as_they_were(report: Report, tmp_path: Path) -> None:
    (found,) = run_benches(["halves"], report, tmp_path / "bench", around, {"halves": halves})
    assert found == BenchRecord("halves", AROUND, (HALF, ALONE))
    assert read_records(tmp_path / "bench") == (found,)
    data = json.loads((tmp_path / "bench/halves.json").read_text())
    assert [row["ratio"] for row in data["rows"]] == [0.5, None]


def test_a_row_shows_its_peer_and_what_did_not_run_its_reason() -> None:
    assert cells(HALF, "A") == ["halves", "half the work", "0.5 s", "1 s (all of it)", "0.5", "A"]
    assert cells(ALONE, "A, busy") == ["halves", "bytes", "12345 B", "-", "-", "A, busy"]
    assert cells(WITHOUT, "A") == ["halves", "on two cards", "not run: no card here", "-", "-", "A"]
    assert [number(x) for x in (0.000123456, 99.96, 123.4, None)] == ["0.000123", "100", "123", "-"]


def test_no_name_runs_all_in_order_and_says_what_cannot_run(report: Report, tmp_path: Path) -> None:
    some = {"b": lambda: [Row("b", "", 1, 2, "")], "c": impossible, "a": halves}
    records = run_benches([], report, tmp_path, around, some)
    assert [record.bench for record in records] == ["a", "b", "c"]
    assert [row.why for row in records[2].rows] == ["nothing is built"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]
    with pytest.raises(NothingSelected):
        run_benches(["c"], report, tmp_path, around, some)


def test_a_wrong_name_runs_nothing(report: Report, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'plam'") as caught:
        run_benches(["halves", "plam"], report, tmp_path, around, {"halves": halves})
    assert "halves" in caught.value.do
    assert list(tmp_path.iterdir()) == []


def test_a_bench_that_breaks_leaves_the_last_result(report: Report, tmp_path: Path) -> None:
    run_benches(["x"], report, tmp_path, around, {"x": halves})
    before = (tmp_path / "x.json").read_text()
    with pytest.raises(RuntimeError):
        run_benches(["x"], report, tmp_path, around, {"x": broken})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bench": "x"}', "null"])
def test_what_is_no_record_is_reported(text: str) -> None:
    with pytest.raises(UsageError, match="not the record of a bench") as caught:
        BenchRecord.from_json(text, "here.json")
    assert caught.value.where == "here.json"


def test_medians_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    # Read before and after each of the six counted calls: "a" takes 1, 9, 2 and "b" takes 4, 4, 5.
    clock = iter([0, 1, 1, 5, 5, 14, 14, 18, 18, 20, 20, 25])
    found = medians(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, clock=lambda: float(next(clock))
    )
    assert found == {"a": 2.0, "b": 4.0}
    assert "".join(calls) == "abababab"


def test_the_first_call_is_not_counted() -> None:
    calls: list[int] = []
    clock = iter([10, 13])
    assert median_seconds(lambda: calls.append(1), repeats=1, clock=lambda: float(next(clock))) == 3.0
    assert len(calls) == 2


def test_two_of_a_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHES, "taken", halves)
    with pytest.raises(ValueError, match="'taken'"):
        bench("taken")(halves)
    monkeypatch.delitem(BENCHES, "taken")
    monkeypatch.delitem(HEAVY, "taken", raising=False)
    assert bench("taken", heavy="hours")(halves) is BENCHES["taken"]
    assert HEAVY["taken"] == "hours"
