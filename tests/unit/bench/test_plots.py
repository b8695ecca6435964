"""The plots: what the records say, nothing of what they lack; the same bytes each time; strings are data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.bar_chart import LABELS, SPAN, WIDTH, Bar, Chart, draw
from bench.plots import (
    ELSEWHERE,
    OURS,
    PEERS,
    UNTOUCHED,
    WHOLE,
    Peer,
    read_peers,
    sizes,
    starts,
    starts_by_settings,
    with_plots,
)
from bench.record import BenchRecord, Row
from images.core.errors import UsageError
from images.proof.on_card.records.record import FORKED, SPAWNED, Figure, GpuRecord
from images.render.document import PLOTS
from tests.helpers.matrices import ROOT
from tests.unit.bench.test_page import QUIET, on_card

SIZES = BenchRecord(
    "sizes",
    QUIET,
    (
        Row("sizes", "x-sm75: all, zstd", 2107.0, 3323.0, "MB", "untouched"),
        Row("sizes", "x-sm75: all, gzip", 2518.0, 4037.0, "MB", "untouched"),
        Row("sizes", "y-sm86: all, zstd", None, None, "MB", why="not built"),
    ),
)
OTHER = Peer("other/engine", 7000, "zstd", "every card", "May 2026")
CHART = Chart("A & <b>", (Bar("one", "x", (("p", 1.0), ("q", 3.0)), "4 s"),), {"p": "#000000", "q": "#ffffff"})


def start(stage: str, seconds: float, how: str, caches: str = "cold") -> Figure:
    return Figure(f"start: {stage}", seconds, "s", {"content": "slimmed", "start": how, "caches": caches})


def record() -> GpuRecord:
    figures = [start("server's imports", 14.0, FORKED), start("weights", 2.0, FORKED), start("new stage", 1.0, FORKED)]
    figures += [start("server's imports", 28.0, SPAWNED), start("weights", 3.0, FORKED, "warm")]
    untouched = Figure("start: weights", 9.0, "s", {"content": "untouched", "start": FORKED, "caches": "cold"})
    return replace(on_card(*figures, untouched), versions={"vllm": "0.25.1"})


def test_sizes_have_each_image_what_it_was_before_and_those_of_others() -> None:
    plot = sizes([SIZES], [OTHER])
    assert plot
    assert [(bar.label, bar.value_text) for bar in plot.chart.bars] == [
        ("x-sm75", "2.11 GB (untouched 3.32)"),
        ("other/engine", "7.00 GB"),
    ]
    assert plot.chart.bars[0].parts == ((OURS, 2107.0), (UNTOUCHED, 3323.0 - 2107.0))
    assert list(plot.chart.colours) == [OURS, UNTOUCHED, ELSEWHERE]
    assert plot.chart.notes[1] == "Measured elsewhere: other/engine (zstd, May 2026)."
    assert "x-sm75, this project: 2.11 GB" in plot.alt


def test_an_image_that_is_also_built_whole_is_one_bar_of_three_parts() -> None:
    whole = Row("sizes", "x-sm75-whole: all, zstd", 2700.0, 3323.0, "MB", "untouched")
    alone = Row("sizes", "z-whole: all, zstd", 900.0, None, "MB")
    plot = sizes([replace(SIZES, rows=(*SIZES.rows, whole, alone))], [])
    assert plot
    assert [(bar.label, bar.value_text) for bar in plot.chart.bars] == [
        ("x-sm75", "2.11 GB (whole 2.70, untouched 3.32)"),
        ("z-whole", "0.90 GB"),
    ]
    assert plot.chart.bars[0].parts == ((OURS, 2107.0), (WHOLE, 593.0), (UNTOUCHED, 623.0))
    assert plot.chart.bars[0].length == 3323.0
    assert list(plot.chart.colours) == [OURS, WHOLE, UNTOUCHED]


def test_an_image_no_lighter_than_untouched_has_no_part_below_zero() -> None:
    rows = (Row("sizes", "x: all, zstd", 100.0, 90.0, "MB"), Row("sizes", "x-whole: all, zstd", 100.0, 90.0, "MB"))
    plot = sizes([replace(SIZES, rows=rows)], [])
    assert plot
    assert plot.chart.bars[0].parts == ((OURS, 100.0),)


def test_starts_are_split_into_stages_the_newest_first() -> None:
    plot = starts([on_card(), record()])
    assert plot
    assert [(bar.label, bar.below, bar.value_text) for bar in plot.chart.bars] == [
        ("empty caches", FORKED, "17.0 s"),
        ("empty caches", SPAWNED, "28.0 s"),
        ("kept caches", FORKED, "3.0 s"),
    ]
    spent = dict(plot.chart.bars[0].parts)
    assert (spent["imports"], spent["weights"], spent["the rest"]) == (14.0, 2.0, 1.0)
    assert plot.chart.notes == (
        "vLLM 0.25.1, 3B's shape in float16, on one NVIDIA H200, driver 580.1, the image's packages on a host without "
        "a Docker engine; one start each.",
    )


def test_starts_by_settings_are_of_the_newest_record_those_before_first() -> None:
    def measured(created: str, seconds: float) -> GpuRecord:
        stages = {"server's imports": seconds, "profile run, memory": 1.0, "healthy": 0.5}
        figures = tuple(
            Figure(f"start: {stage}", value, "s", {"settings": settings, "caches": caches}, (value,))
            for caches in ("kept", "empty")
            for settings in ("after, memory seen", "before")
            for stage, value in stages.items()
        )
        return replace(on_card(), created=created, variant="x-sm90", figures=figures)

    plot = starts_by_settings([measured("2026-11-28T10:00", 5.0), measured("2026-11-27T10:00", 9.0), record()])
    assert plot
    assert [(bar.label, bar.below, bar.value_text) for bar in plot.chart.bars] == [
        ("empty caches", "before", "6.5 s"),
        ("empty caches", "after, memory seen", "6.5 s"),
        ("kept caches", "before", "6.5 s"),
        ("kept caches", "after, memory seen", "6.5 s"),
    ]
    spent = dict(plot.chart.bars[0].parts)
    assert (spent["imports"], spent["profile run, KV cache, warm-up"], spent["the rest"]) == (5.0, 1.0, 0.5)
    assert starts_by_settings([record()]) is None


def test_without_records_there_is_no_plot() -> None:
    assert sizes([], [OTHER]) is None
    assert sizes([replace(SIZES, rows=SIZES.rows[2:])], [OTHER]) is None
    assert starts([]) is None
    assert starts([on_card()]) is None
    begin, end = PLOTS.marks
    assert with_plots({PLOTS.page: f"{begin}\n{end}"}, [], [], []) == {PLOTS.page: f"{begin}\n\n{end}"}


def test_the_page_shows_each_drawing() -> None:
    made = with_plots({PLOTS.page: "\n".join(PLOTS.marks)}, [SIZES], [record()], [OTHER])
    assert set(made) == {PLOTS.page, "docs/plots/sizes.svg", "docs/plots/start.svg"}
    shown = re.findall(r"!\[(.+?)\]\((.+?)\)", made[PLOTS.page])
    assert [target for _, target in shown] == ["plots/sizes.svg", "plots/start.svg"]
    assert made == with_plots({PLOTS.page: "\n".join(PLOTS.marks)}, [SIZES], [record()], [OTHER])


def test_a_drawing_is_xml_with_bars_as_long_as_their_values() -> None:
    text = draw(CHART)
    tree = ElementTree.fromstring(text)  # noqa: S314  (our own text)
    name = "{http://www.w3.org/2000/svg}"
    assert tree.findtext(f"{name}title") == "A & <b>"
    bars = [rect for rect in tree.iter(f"{name}rect") if rect.find(f"{name}title") is not None]
    assert [float(bar.attrib["width"]) for bar in bars] == [SPAN / 4, SPAN * 3 / 4]
    assert float(bars[0].attrib["x"]) >= LABELS
    assert float(bars[1].attrib["x"]) + float(bars[1].attrib["width"]) < WIDTH


def test_a_long_note_is_wrapped_and_the_drawing_grows_with_it() -> None:
    height = re.compile(r'viewBox="0 0 \d+ (\d+)"')
    short, long = (height.findall(draw(replace(CHART, notes=(note,))))[0] for note in ("a b", "word " * 50))
    assert int(long) - int(short) == 40


def test_the_committed_peers_are_read_and_another_form_is_told(tmp_path: Path) -> None:
    assert {peer.name for peer in read_peers(ROOT / PEERS)} >= {"vllm/vllm-openai"}
    (tmp_path / "peers.yaml").write_text("- {name: x}\n")
    with pytest.raises(UsageError, match="images of others"):
        read_peers(tmp_path / "peers.yaml")
