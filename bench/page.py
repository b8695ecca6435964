"""BENCH.md and the rows of docs/benchmarks.md, written from the records that are kept. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.frame import HEADER, cells
from bench.gpu import rows_of as gpu_rows
from bench.record import FOLDER, BenchRecord, Improvement, Row
from images.proof.on_card.records import GpuRecord
from images.render import document

PAGE = "BENCH.md"
_RUNS = ["bench", "command", "machine", "when (UTC)", "commit", "inputs of images", "processors in use by others"]
_HEAD = f"""\
# Measurements

Written from the last runs that are kept: `{FOLDER}/NAME.json`, and, for what ran on a card, `records/cards/`.
`./inv bench` shows the table; `./inv bench NAME` measures one of its names anew, and with `--record` keeps what it
finds and writes this page; `./inv render` writes it after a new run on a card. A time is the median of the repeats of
one run (of a single one where it says `runs: 1`, and in starts on a card), prefill in the engine that of the quickest
quarter; sizes are counted once. What is compared ran on the same machine, and times that repeat ran in turns. The
ratio is this project to its peer, or to the limit that it is to stay below: below 1 is better for seconds and
megabytes, above 1 for tokens/s. *Busy*: other work had more than a quarter of the processors when the run began, so
that its seconds say less than its ratios.
"""


def bench_page(
    records: Sequence[BenchRecord],
    on_cards: Sequence[GpuRecord],
    benches: Mapping[str, str],
    acted: Sequence[Improvement] = (),
) -> str:
    """BENCH.md. ``benches`` are all there are, each with what it takes ("" for seconds and nothing else)."""
    letters = _letters(records, on_cards)
    lines = [cells(row, machine) for row, machine in _rows(records, on_cards, letters)]
    kept = {record.bench for record in records}
    for name, takes in benches.items():
        if name not in kept:
            why = "no run is kept" + (f"; it takes {takes}" if takes else "")
            lines.append(cells(Row(name, "", None, None, "", why=why), "-"))
    runs = [_run(record, letters[str(record.conditions.machine)]) for record in records]
    machines = [f"- {letter}: {machine}" for machine, letter in letters.items()]
    notes = [f"- {row.name}: {row.image}" for row in _images(records)]
    return "\n".join(
        [
            _HEAD,
            *_table(HEADER, lines),
            *_improvements_section(acted),
            "\n## Machines\n",
            *machines,
            "\n## Runs\n",
            *_table(_RUNS, runs),
            *(
                ["\n## Images that were measured\n", "By variant and the hash of their inputs.\n", *notes]
                if notes
                else []
            ),
            "",
        ]
    )


def headlines(records: Sequence[BenchRecord], on_cards: Sequence[GpuRecord]) -> str:
    """The table of docs/benchmarks.md: the rows that say most."""
    letters = _letters(records, on_cards)
    names = {letter: machine for machine, letter in letters.items()}
    chosen = [(row, machine) for row, machine in _rows(records, on_cards, letters) if row.headline]
    used = {machine.partition(",")[0] for _, machine in chosen}
    lines = [cells(row, machine)[1:] for row, machine in chosen]
    where = [f"{letter}: {names[letter]}." for letter in names if letter in used]
    return "\n".join([*_table(HEADER[1:], lines), "", " ".join(where)]).rstrip()


def with_measurements(
    pages: Mapping[str, str],
    records: Sequence[BenchRecord],
    on_cards: Sequence[GpuRecord],
    benches: Mapping[str, str],
    acted: Sequence[Improvement] = (),
) -> dict[str, str]:
    """``pages`` (path -> text) with BENCH.md, and with the measurements of docs/benchmarks.md filled in."""
    shown = document.MEASUREMENTS.fill_in(pages, headlines(records, on_cards))
    return {**shown, PAGE: bench_page(records, on_cards, benches, acted)}


def _rows(
    records: Iterable[BenchRecord], on_cards: Iterable[GpuRecord], letters: Mapping[str, str]
) -> list[tuple[Row, str]]:
    """Every row with its machine: "A", "A, busy"."""
    rows = []
    for record in records:
        busy = ", busy" if record.conditions.was_busy else ""
        rows += [(row, letters[str(record.conditions.machine)] + busy) for row in record.rows]
    for one in on_cards:
        rows += [(row, letters[_card(one)]) for row in gpu_rows(one)]
    return rows


def _card(record: GpuRecord) -> str:
    driver = f", driver {record.driver}" if record.driver else ""
    return f"one {record.card}{driver}"


def _letters(records: Iterable[BenchRecord], on_cards: Iterable[GpuRecord]) -> dict[str, str]:
    """Machine -> its letter, in the order of the records; cards of which nothing is shown get none."""
    machines = [str(record.conditions.machine) for record in records]
    machines += [_card(one) for one in on_cards if gpu_rows(one)]
    return {machine: _letter(at) for at, machine in enumerate(dict.fromkeys(machines))}


def _letter(at: int) -> str:
    return chr(ord("A") + at) if at < 26 else f"M{at}"


def _run(record: BenchRecord, letter: str) -> list[str]:
    around = record.conditions
    when = around.date.replace("T", " ").removesuffix("Z")
    command = f"`./inv bench {record.bench}`"
    others = "not told" if around.busy is None else f"{around.busy:.0%}"
    return [record.bench, command, letter, when, around.revision, around.inputs, others]


def _improvements_section(acted: Sequence[Improvement]) -> list[str]:
    lines = [[one.what, one.before, one.after, one.how] for one in acted]
    return ["\n## Acted on\n", *_table(["what cost", "before", "after", "measured by"], lines)] if acted else []


def _images(records: Iterable[BenchRecord]) -> list[Row]:
    """A row for each image and bench."""
    rows = {(row.name, row.image): row for record in records for row in record.rows if row.image}
    return list(rows.values())


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    table = [header, ["---"] * len(header), *lines]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in table]
