"""The plots of docs/benchmarks.md, made of the records: sizes beside those of others, where a start's time goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.bar_chart import Bar, Chart, draw
from bench.record import BenchRecord, Row
from images.core import UsageError
from images.proof.on_card.records import FORKED, SPAWNED, GpuRecord
from images.render import document

FOLDER = "docs/plots"
PEERS = "bench/peers.yaml"
WHOLE_SUFFIX = "-whole"
OURS, ELSEWHERE = "this project", "others, measured elsewhere"
# What an image would weigh more: with NVIDIA's libraries whole, and then with all else as it was installed.
WHOLE, UNTOUCHED = "more in its image -whole", "more in the same packages, untouched"
_SIZES = ": all, zstd"
# What is measured of a start, by what it is spent on.
STAGES = {
    "imports": ("server's imports", "engine's process and imports"),
    "weights": ("weights",),
    "compilation": ("compilation",),
    "profile run, KV cache, warm-up": ("profile run, KV cache, warm-up", "profile run, memory"),
    "CUDA graphs": ("CUDA graphs",),
}
REST = "the rest"
_CACHES = {"cold": "empty caches", "warm": "kept caches", "empty": "empty caches", "kept": "kept caches"}
# Six that people who do not see red or green tell apart, after Okabe and Ito.
_COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#56b4e9", "#009e73", "#9aa5ad")


@dataclass(frozen=True)
class Peer:
    """An image of others: megabytes to pull, how they are ``packed``, what it ``holds``, when that was ``seen``."""

    name: str
    megabytes: float
    packed: str
    holds: str
    seen: str


@dataclass(frozen=True)
class Plot:
    """A drawing for the page: its file's name, its chart, and what stands below it."""

    name: str
    chart: Chart
    caption: str

    @property
    def alt(self) -> str:
        """The chart in words, for who does not see it."""
        bars = "; ".join(f"{bar.label}, {bar.below}: {bar.value_text}" for bar in self.chart.bars)
        return f"{self.chart.title}. {bars}".replace("[", "(").replace("]", ")")


def read_peers(path: Path) -> tuple[Peer, ...]:
    """Those of a YAML file. Raises UsageError for another form."""
    try:
        return tuple(Peer(**one) for one in yaml.safe_load(path.read_text(encoding="utf-8")))
    except (TypeError, yaml.YAMLError) as error:
        raise UsageError("this is no list of images of others", cause=str(error), where=str(path)) from error


def with_plots(
    before: Mapping[str, str], records: Iterable[BenchRecord], on_cards: Sequence[GpuRecord], peers: Sequence[Peer]
) -> dict[str, str]:
    """``before`` (path -> text) with the plots that there are records for, and with the section that shows them."""
    made = [plot for plot in (sizes(records, peers), starts_by_settings(on_cards), starts(on_cards)) if plot]
    shown = "\n\n".join(f"![{plot.alt}](plots/{plot.name}.svg)\n\n{plot.caption}" for plot in made)
    drawings = {f"{FOLDER}/{plot.name}.svg": draw(plot.chart) for plot in made}
    return {**document.PLOTS.fill_in(before, shown), **drawings}


def sizes(records: Iterable[BenchRecord], peers: Sequence[Peer]) -> Plot | None:
    """What is to pull of each measured image, whole, untouched, and of others; None where no size is kept."""
    record = next((one for one in records if one.bench == "sizes"), None)
    rows = [row for row in (record.rows if record else ()) if row.measures.endswith(_SIZES) and row.ours is not None]
    if record is None or not rows:
        return None
    named = {row.measures.removesuffix(_SIZES): row for row in rows}
    bars = [
        _size(name, row, named.get(name + WHOLE_SUFFIX)) for name, row in named.items() if not _is_whole(name, named)
    ]
    bars += [Bar(p.name, p.holds, ((ELSEWHERE, p.megabytes),), _gigabytes(p.megabytes)) for p in peers]
    elsewhere = "; ".join(f"{peer.name} ({peer.packed}, {peer.seen})" for peer in peers)
    notes = (
        f"Layers packed by zstd, measured by ./inv bench sizes on {record.conditions.date[:10]}.",
        *([f"Measured elsewhere: {elsewhere}."] if peers else []),
    )
    kinds = {OURS: "#00796b", WHOLE: "#6fb7ae", UNTOUCHED: "#c3d3d1", ELSEWHERE: "#d0812a"}
    drawn = {kind for bar in bars for kind, _ in bar.parts}
    colours = {kind: colour for kind, colour in kinds.items() if kind in drawn}
    caption = f"What is to pull. The figures are in `records/bench/sizes.json`, those of others in `{PEERS}`."
    return Plot("sizes", Chart("Gigabytes to pull", tuple(bars), colours, notes), caption)


def _is_whole(name: str, named: Mapping[str, Row]) -> bool:
    return name.endswith(WHOLE_SUFFIX) and name.removesuffix(WHOLE_SUFFIX) in named


def _size(name: str, row: Row, whole: Row | None) -> Bar:
    """One image: what it weighs, and what it would weigh more, each part beyond the one before it."""
    steps = ((OURS, row.ours), (WHOLE, whole.ours if whole else None), (UNTOUCHED, row.peer))
    parts, reached = [], 0.0
    for kind, megabytes in steps:
        if megabytes is not None and megabytes > reached:
            parts.append((kind, megabytes - reached))
            reached = megabytes
    others = {"whole": whole.ours if whole else None, "untouched": row.peer}
    more = [f"{what} {megabytes / 1000:.2f}" for what, megabytes in others.items() if megabytes]
    said = _gigabytes(row.ours or 0.0) + (f" ({', '.join(more)})" if more else "")
    return Bar(name, OURS, tuple(parts), said)


def starts(on_cards: Sequence[GpuRecord]) -> Plot | None:
    """Where the time to the first token goes, now and before; of the record that has most such starts."""
    record = max(on_cards, key=lambda one: len(_measured(one)), default=None)
    measured = _measured(record) if record else {}
    if record is None or not measured:
        return None
    bars = tuple(_start(of, measured[of]) for of in sorted(measured, key=_cold_and_new_first))
    where = f"{record.card}, driver {record.driver}" if record.driver else record.card
    place = ", the image's packages on a host without a Docker engine" if record.place == "packages" else ""
    notes = (f"vLLM {record.versions.get('vllm', '')}, 3B's shape in float16, on one {where}{place}; one start each.",)
    colours = dict(zip((*STAGES, REST), _COLOURS, strict=True))
    chart = Chart("Seconds from process start to first token", bars, colours, notes)
    caption = (
        f"Where a start's time goes. *{FORKED}*: how an image starts now. *{SPAWNED}*: how vLLM starts without what "
        "the image adds. The figures are in `records/cards/`; `./inv test --gpu` measures them."
    )
    return Plot("start", chart, caption)


def starts_by_settings(on_cards: Sequence[GpuRecord]) -> Plot | None:
    """Where the time from `docker run` to the first token goes, without fit's settings for a shorter start and with.

    Of the newest record of bench/start_breakdown.py; None without one.
    """
    records = [one for one in on_cards if _by_settings(one)]
    record = max(records, key=lambda one: one.created, default=None)
    if record is None:
        return None
    measured = _by_settings(record)
    bars = tuple(
        _start((caches, settings), measured[caches, settings])
        for caches, settings in sorted(measured, key=lambda of: (of[0] != "empty", of[1] != "before"))
    )
    notes = (
        f"{record.variant}, 3B's shape, in a container on one {record.card}, driver {record.driver}; "
        f"{record.created[:10]}.",
    )
    colours = dict(zip((*STAGES, REST), _COLOURS, strict=True))
    chart = Chart("Seconds from docker run to first token", bars, colours, notes)
    caption = (
        "Where a start's time goes in the newest image. *before*: with vLLM's own settings; *after*: with what `fit` "
        "sets for a shorter start. The figures are in `records/cards/`; `bench/start_breakdown.py` measures them."
    )
    return Plot("start-settings", chart, caption)


def _by_settings(record: GpuRecord) -> dict[tuple[str, str], dict[str, float]]:
    """(caches, settings) -> seconds of each stage."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for figure in record.figures:
        if figure.name.startswith("start: ") and figure.of.get("settings"):
            of = figure.of.get("caches", ""), figure.of["settings"]
            found.setdefault(of, {})[figure.name.removeprefix("start: ")] = figure.value
    return found


def _measured(record: GpuRecord) -> dict[tuple[str, str], dict[str, float]]:
    """(caches, how it was started) -> seconds of each stage, of whole starts of what is slimmed."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for figure in record.figures:
        if figure.name.startswith("start: ") and figure.of.get("start") and figure.of.get("content") == "slimmed":
            of = figure.of.get("caches", ""), figure.of["start"]
            found.setdefault(of, {})[figure.name.removeprefix("start: ")] = figure.value
    return found


def _cold_and_new_first(of: tuple[str, str]) -> tuple[bool, bool]:
    caches, start = of
    return caches != "cold", start != FORKED


def _start(of: tuple[str, str], seconds: Mapping[str, float]) -> Bar:
    caches, start = of
    spent = {name: sum(seconds.get(stage, 0.0) for stage in stages) for name, stages in STAGES.items()}
    whole = sum(seconds.values())
    parts = (*spent.items(), (REST, whole - sum(spent.values())))
    return Bar(_CACHES.get(caches, caches), start, parts, f"{whole:.1f} s")


def _gigabytes(megabytes: float) -> str:
    return f"{megabytes / 1000:.2f} GB"
