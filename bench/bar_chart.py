"""Bars beside each other as an SVG: the same data give the same bytes. Pure; strings are data.

The drawing has a light ground of its own, so that it can be read on a light page and on a dark one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from xml.sax.saxutils import escape

WIDTH, LABELS, MARGIN = 860, 300, 16
# Room for the bars; what is right of them is for the longest bar's figure.
SPAN = WIDTH - LABELS - MARGIN - 90
HEAD, ROW, BAR, LINE = 46, 46, 24, 20
# So many letters of a note fit on a line.
LETTERS = 115
FONT = "system-ui, Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Bar:
    """One bar: what it is, in two lines, and its parts as (kind, value); ``value_text`` stands at its end."""

    label: str
    below: str
    parts: tuple[tuple[str, float], ...]
    value_text: str

    @property
    def length(self) -> float:
        """In the unit of its parts."""
        return sum(value for _, value in self.parts)


@dataclass(frozen=True)
class Chart:
    """Bars below a title, the colour of each kind of part, and lines below the bars."""

    title: str
    bars: tuple[Bar, ...]
    colours: dict[str, str]
    notes: tuple[str, ...] = ()


def draw(chart: Chart) -> str:
    """The chart as an SVG document."""
    legend = _legend(chart.colours)
    rows = max((row for _, _, row in legend), default=0) + 1
    top = HEAD + rows * LINE + 10
    bottom = top + len(chart.bars) * ROW
    notes = [line for note in chart.notes for line in wrap(note, LETTERS)]
    height = bottom + len(notes) * LINE + MARGIN
    scale = SPAN / (max((bar.length for bar in chart.bars), default=0) or 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="{FONT}">',
        f"<title>{escape(chart.title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#f4f8f8"/>',
        _text(MARGIN, 30, chart.title, 18, "#112233", weight=600),
    ]
    for kind, x, row in legend:
        y = HEAD + row * LINE
        lines.append(f'<rect x="{x}" y="{y}" width="12" height="12" rx="2" fill="{chart.colours[kind]}"/>')
        lines.append(_text(x + 18, y + 11, kind, 13, "#334455"))
    for at, bar in enumerate(chart.bars):
        lines += _bar(bar, chart.colours, top + at * ROW, scale)
    for at, note in enumerate(notes):
        lines.append(_text(MARGIN, bottom + 14 + at * LINE, note, 13, "#4a5a66"))
    return "\n".join([*lines, "</svg>", ""])


def _bar(bar: Bar, colours: dict[str, str], y: int, scale: float) -> Iterator[str]:
    yield _text(LABELS, y + 15, bar.label, 14, "#112233", anchor="end")
    yield _text(LABELS, y + 31, bar.below, 12, "#4a5a66", anchor="end")
    x = LABELS + 12.0
    for kind, value in bar.parts:
        width = value * scale
        hint = f"<title>{escape(f'{kind}: {value:.3g}')}</title>"
        yield f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{BAR}" fill="{colours[kind]}">{hint}</rect>'
        x += width
    yield _text(x + 8, y + 21, bar.value_text, 14, "#112233")


def _text(x: float, y: float, text: str, size: int, fill: str, *, anchor: str = "", weight: int = 0) -> str:
    more = (f' text-anchor="{anchor}"' if anchor else "") + (f' font-weight="{weight}"' if weight else "")
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{more}>{escape(text)}</text>'


def _legend(colours: dict[str, str]) -> list[tuple[str, int, int]]:
    """Each kind with where it stands: x and the number of its line. A letter is taken to be 7.5 wide."""
    placed, x, row = [], MARGIN, 0
    for kind in colours:
        width = 18 + round(len(kind) * 7.5) + 18
        if x + width > WIDTH and x > MARGIN:
            x, row = MARGIN, row + 1
        placed.append((kind, x, row))
        x += width
    return placed
