"""BENCH.md and docs/benchmarks.md say what the records say, and `render --check` notices when they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import command, frame
from bench.command import pages
from bench.machine import busy_share, read_bench_machine
from bench.page import bench_page, headlines
from bench.page import with_measurements as filled
from bench.plots import PEERS
from bench.record import (
    FOLDER,
    IMPROVEMENTS,
    BenchMachine,
    BenchRecord,
    Row,
    RunConditions,
    read_improvements,
    read_records,
    write_record,
)
from images.core.errors import UsageError
from images.proof.on_card.records.record import Figure, GpuRecord, Step
from images.render.checkout import Checkout
from images.render.document import MEASUREMENTS, PLOTS

ROOT = Path(__file__).parents[3]
SHOWN = MEASUREMENTS.page
QUIET = RunConditions(BenchMachine("X", 2, 8_000_000_000, "Linux", "3.11.7"), 0.1, "2026-11-21T12:00:00Z", "abc", "def")
BUSY = replace(QUIET, busy=0.9, machine=replace(QUIET.machine, cores=64))
PLAN = BenchRecord("plan", QUIET, (Row("plan", "10,000 points", 0.4, 1.0, "s", "limit", headline=True),))
SIZES = BenchRecord("sizes", BUSY, (Row("sizes", "a | b", 97.0, 2349.0, "MB", "the whole", image="x-sm75@0123"),))


def on_card(*figures: Figure) -> GpuRecord:
    return GpuRecord(
        card="NVIDIA H200",
        capability="9.0",
        memory=1,
        driver="580.1",
        created="",
        place="packages",
        variant="x-sm90",
        input_hash="f" * 64,
        versions={},
        steps=(Step("audit", "passed"),),
        figures=figures,
    )


def test_every_row_is_there_with_its_machine() -> None:
    text = bench_page([PLAN, SIZES], [], {"plan": "", "sizes": "images", "kernels": "hours"})
    assert "| plan | 10,000 points | 0.4 s | 1 s (limit) | 0.4 | A |" in text
    assert "| sizes | a \\| b | 97 MB | 2349 MB (the whole) | 0.0413 | B, busy |" in text
    assert "| kernels | - | not run: no run is kept; it takes hours | - | - | - |" in text
    assert "- A: 2 cores of X, 8 GB, Linux, Python 3.11.7" in text
    assert "| sizes | `./inv bench sizes` | B | 2026-11-21 12:00:00 | abc | def | 90% |" in text
    assert "- sizes: x-sm75@0123" in text


def test_what_is_slimmed_stands_against_what_is_untouched() -> None:
    of = {"engine": "vllm", "batch": "16"}
    slimmed = Figure("decode", 990.0, "tokens/s", {**of, "content": "slimmed"})
    untouched = Figure("decode", 1000.0, "tokens/s", {**of, "content": "untouched"})
    other = Figure("prefill", 5.0, "tokens/s", {**of, "content": "untouched"})
    record = on_card(untouched, slimmed, other)
    record = replace(record, steps=(*record.steps, Step("warm start", "not run", "no time left")))
    text = bench_page([PLAN], [record, on_card()], {})
    assert "| gpu | warm start | not run: no time left | - | - | B |" in text
    assert "decode" in headlines([PLAN], [record])
    shown = "| gpu | decode: vllm, batch 16, slimmed | 990 tokens/s | 1000 tokens/s (untouched) | 0.99 | B |"
    assert [line for line in text.splitlines() if "decode" in line] == [shown]
    assert "| gpu | prefill: vllm, batch 16, untouched | 5 tokens/s | - | - | B |" in text
    assert "- B: one NVIDIA H200, driver 580.1" in text


def test_a_start_stands_against_how_it_was_before_and_parts_of_one_without_bytecode_are_left_out() -> None:
    def start(name: str, seconds: float, **of: str) -> Figure:
        return Figure(name, seconds, "s", {"content": "slimmed", **of})

    now, before = {"start": "forked, class known"}, {"start": "spawned, class looked at"}
    made = {"bytecode": "bytecode made"}
    result = [
        start("start: imports", 14.0, **now),
        start("start: imports", 28.0, **before),
        start("start: imports", 41.0, **made),
        start("start to first token", 118.0, **made),
    ]
    text = bench_page([PLAN], [on_card(*result)], {})
    assert [line for line in text.splitlines() if "start: imports" in line] == [
        "| gpu | start: imports: slimmed, forked, class known | 14 s | 28 s (spawned, class looked at) | 0.5 | B |"
    ]
    assert "| gpu | start to first token: slimmed, bytecode made | 118 s | - | - | B |" in text


def test_what_was_acted_on_stands_before_and_after(tmp_path: Path) -> None:
    file = tmp_path / "acted.yaml"
    file.write_text("- {what: imports, before: 2 s, after: 1 s, how: a | b}\n")
    assert "| imports | 2 s | 1 s | a \\| b |" in bench_page([PLAN], [], {}, read_improvements(file))
    file.write_text("- {what: imports}\n")
    with pytest.raises(UsageError, match="acted on"):
        read_improvements(file)


def test_the_table_has_the_headlines_and_their_machines_only() -> None:
    text = headlines([SIZES, PLAN], [])
    assert "10,000 points" in text
    assert "a | b" not in text
    assert "B: 2 cores" in text
    assert "A: 64 cores" not in text
    text = filled({SHOWN: "\n".join(["x", *MEASUREMENTS.marks, "y"])}, [PLAN], [], {})[SHOWN]
    assert text.startswith(f"x\n{MEASUREMENTS.marks[0]}\n| what")
    assert text.endswith(f"{MEASUREMENTS.marks[1]}\ny")
    with pytest.raises(UsageError, match="no place for the measurements"):
        filled({SHOWN: "nothing"}, [PLAN], [], {})


def test_the_committed_pages_are_what_the_kept_records_say() -> None:
    checkout = Checkout(ROOT)
    result = pages(checkout, checkout.texts([SHOWN]))
    assert set(result) == {
        SHOWN,
        "BENCH.md",
        *(f"docs/plots/{name}.svg" for name in ("sizes", "start", "start-settings")),
    }
    assert result == checkout.texts(result)
    assert {record.bench for record in read_records(ROOT / FOLDER)} >= {"plan", "render", "catalogue"}


def test_a_machine_is_read_from_proc_and_unknown_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    (tmp_path / "meminfo").write_text("MemTotal:       24683108 kB\nMemFree: 1 kB\n")
    found = read_bench_machine(tmp_path)
    assert (found.processor, found.memory) == ("Some CPU @ 2 GHz", 24683108 * 1024)
    assert read_bench_machine(tmp_path / "absent").memory == 0


def test_busy_is_what_others_took_while_this_process_slept() -> None:
    times = iter([(100.0, 1000.0), (250.0, 1200.0)])
    slept: list[float] = []
    assert busy_share(times=lambda: next(times), sleep=slept.append) == 0.75
    assert len(slept) == 1
    assert busy_share(times=lambda: (0.0, 0.0), sleep=slept.append) == 0.0


def test_what_did_not_run_drops_no_run_that_is_kept(tmp_path: Path) -> None:
    missed = BenchRecord("plan", QUIET, (Row("plan", "", None, None, "", why="nothing is built"),))
    assert command.worth_keeping([missed, SIZES], tmp_path) == [missed, SIZES]
    write_record(tmp_path, PLAN)
    assert command.worth_keeping([missed, SIZES], tmp_path) == [SIZES]
    assert command.worth_keeping([PLAN], tmp_path) == [PLAN]


def test_a_name_runs_one_bench_and_none_runs_those_that_take_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run_conditions", lambda _: QUIET)
    monkeypatch.setattr(frame, "BENCHES", {"plan": lambda: PLAN.rows, "sizes": lambda: SIZES.rows})
    monkeypatch.setattr(frame, "HEAVY", {"sizes": "built images"})
    checkout = Checkout(tmp_path)
    (tmp_path / SHOWN).parent.mkdir()
    (tmp_path / SHOWN).write_text("\n".join(["x", *MEASUREMENTS.marks, *PLOTS.marks, ""]))
    (tmp_path / IMPROVEMENTS).parent.mkdir(parents=True)
    (tmp_path / IMPROVEMENTS).write_text("[]\n")
    (tmp_path / PEERS).write_text("[]\n")
    command.bench(checkout, [])
    assert not (tmp_path / "BENCH.md").exists()
    assert "10,000 points" in (out := capsys.readouterr().out)
    assert "a | b" not in out
    command.bench(checkout, ["sizes"], record=True)
    assert "a | b" in capsys.readouterr().out
    assert [record.bench for record in read_records(tmp_path / FOLDER)] == ["sizes"]
    assert "a \\| b" in (tmp_path / "BENCH.md").read_text()
    assert "| what" in (tmp_path / SHOWN).read_text()
    command.bench(checkout, [])
    assert "2349 MB (the whole)  0.0413  2 cores, 2026-11-21" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no bench is named 'size'"):
        command.bench(checkout, ["size"])
