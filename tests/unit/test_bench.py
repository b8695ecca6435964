"""The frame of the measurements; no test here looks at a real clock."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from images.bench.frame import BENCHES, Row, bench, median_seconds, medians, run_benches
from images.errors import UsageError
from images.report import Report


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def report(out: io.StringIO) -> Report:
    return Report(out, io.StringIO(), clock=lambda: 0.0)


def halves() -> Iterable[Row]:
    yield Row("halves", "seconds for half the work", 0.5, 1.0, "s")
    yield Row("alone", "bytes", 12345.0, None, "B")


def broken() -> Iterable[Row]:
    yield from halves()
    raise RuntimeError("half-way")


def test_rows_are_printed_and_written(report: Report, out: io.StringIO, tmp_path: Path) -> None:
    assert run_benches(["halves"], report, tmp_path / "bench", {"halves": halves}) == list(halves())
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["name", "measures", "ours", "peer", "ratio", "unit"]
    assert lines[1].split()[-4:] == ["0.5", "1", "0.5", "s"]
    assert lines[2].split()[-4:] == ["12345", "-", "-", "B"]
    told = json.loads((tmp_path / "bench" / "halves.json").read_text())
    assert told["rows"][0]["ratio"] == 0.5
    assert told["rows"][1] == {
        "name": "alone",
        "measures": "bytes",
        "ours": 12345.0,
        "peer": None,
        "unit": "B",
        "ratio": None,
    }
    assert told["machine"]["cores"] >= 1


def test_no_name_runs_all_in_order(report: Report, tmp_path: Path) -> None:
    rows = run_benches([], report, tmp_path, {"b": lambda: [Row("b", "", 1, 2, "")], "a": halves})
    assert [row.name for row in rows] == ["halves", "alone", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_wrong_name_runs_nothing(report: Report, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'plam'") as caught:
        run_benches(["halves", "plam"], report, tmp_path, {"halves": halves})
    assert "halves" in caught.value.do
    assert list(tmp_path.iterdir()) == []


def test_a_bench_that_breaks_leaves_the_last_result(report: Report, tmp_path: Path) -> None:
    run_benches(["x"], report, tmp_path, {"x": halves})
    before = (tmp_path / "x.json").read_text()
    with pytest.raises(RuntimeError):
        run_benches(["x"], report, tmp_path, {"x": broken})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == before


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
    assert bench("taken")(halves) is BENCHES["taken"]
