"""Draws the pictures that the demo page offers (images/run/demo/examples), in the environment of dev/browser.lock.

    PYTHON -m tests.golden.make_examples [FOLDER]

PYTHON is that of `tests.engine.browser.driver()`. Nothing in them is from elsewhere: shapes, and Pillow's own font.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parents[2] / "images/run/demo/examples"
WIDTH, HEIGHT = 480, 360  # pixels
_FINER = 4  # drawn so much larger, then brought down: edges are smooth
_COLOURS = 32  # of a picture's palette
INK, PAPER, TABLE = "#26323a", "#fdfcf8", "#dfe8e6"


class Sheet:
    """A picture under way; lengths are in its final pixels."""

    def __init__(self, ground: str) -> None:
        self.image = Image.new("RGB", (WIDTH * _FINER, HEIGHT * _FINER), ground)
        self._draw = ImageDraw.Draw(self.image)

    def box(self, left: float, top: float, right: float, bottom: float, fill: str, radius: float = 0) -> None:
        """A rectangle."""
        self._draw.rounded_rectangle(_finer(left, top, right, bottom), radius * _FINER, fill)

    def disc(self, x: float, y: float, across: float, down: float, fill: str) -> None:
        """An ellipse around a point; ``across`` and ``down`` are half of its size."""
        self._draw.ellipse(_finer(x - across, y - down, x + across, y + down), fill)

    def line(self, points: tuple[float, ...], fill: str, width: float) -> None:
        """A line through points, x and y in turn."""
        self._draw.line(_finer(*points), fill, round(width * _FINER), joint="curve")

    def ring(self, x: float, y: float, radius: float, fill: str, width: float) -> None:
        """A circle's line."""
        here = _finer(x - radius, y - radius, x + radius, y + radius)
        self._draw.ellipse(here, outline=fill, width=round(width * _FINER))

    def text(self, x: float, y: float, text: str, size: float, anchor: str = "lm", fill: str = INK) -> None:
        """A line of text; ``anchor`` as Pillow names them."""
        font = ImageFont.load_default(size * _FINER)
        self._draw.text(_finer(x, y), text, fill, font, anchor=anchor)

    def finished(self) -> Image.Image:
        """In its final size, with few colours."""
        small = self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        return small.quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _finer(*values: float) -> tuple[float, ...]:
    return tuple(value * _FINER for value in values)


def receipt() -> Image.Image:
    """A receipt on a table."""
    sheet = Sheet(TABLE)
    sheet.box(112, 22, 376, 344, "#c6d3d0", 4)  # its shadow
    sheet.box(106, 16, 370, 338, PAPER, 4)
    sheet.text(238, 48, "Harbour Kitchen", 26, "mm")
    sheet.text(238, 76, "Table 7    14 March", 15, "mm", "#5d6b72")
    sheet.line((128, 98, 348, 98), "#9aa7ad", 1.5)
    rows = (("2 coffee", "6.40"), ("1 lemon tea", "2.90"), ("1 apple cake", "4.50"), ("1 soup of the day", "7.20"))
    for at, (name, price) in enumerate(rows):
        sheet.text(128, 124 + 34 * at, name, 19)
        sheet.text(348, 124 + 34 * at, price, 19, "rm")
    sheet.line((128, 254, 348, 254), "#9aa7ad", 1.5)
    sheet.text(128, 280, "Total", 24)
    sheet.text(348, 280, "21.00", 24, "rm")
    sheet.text(238, 316, "Thank you", 15, "mm", "#5d6b72")
    return sheet.finished()


def rain() -> Image.Image:
    """A chart of rain, month by month."""
    sheet = Sheet(PAPER)
    sheet.text(24, 32, "Rain in a year, in mm", 22)
    bottom, scale = 310, 2.0
    for value in (0, 40, 80, 120):
        y = bottom - value * scale
        sheet.line((58, y, 462, y), "#d5dbdd", 1)
        sheet.text(50, y, str(value), 15, "rm", "#5d6b72")
    months = (62, 48, 55, 40, 34, 28, 22, 31, 57, 84, 118, 91)
    for at, (name, value) in enumerate(zip("JFMAMJJASOND", months, strict=True)):
        x = 66 + 33 * at
        sheet.box(x, bottom - value * scale, x + 24, bottom, "#2f7f8c", 3)
        sheet.text(x + 12, bottom + 20, name, 17, "mm")
    return sheet.finished()


def table() -> Image.Image:
    """Three apples, a pear and a cup on a table."""
    sheet = Sheet("#e9f0f4")
    sheet.box(0, 226, WIDTH, HEIGHT, "#c99a63")
    sheet.box(0, 226, WIDTH, 234, "#b58850")
    for x, y, colour, shade in ((96, 236, "#c8372d", "#a82c24"), (176, 254, "#c8372d", "#a82c24")):
        _apple(sheet, x, y, colour, shade)
    _apple(sheet, 132, 290, "#7fae3a", "#6a9430")
    sheet.disc(262, 268, 36, 9, "#a97c46")
    sheet.disc(262, 240, 34, 30, "#d9c24a")
    sheet.disc(262, 200, 20, 28, "#d9c24a")
    sheet.line((262, 178, 268, 158), "#6b4a2b", 5)
    sheet.ring(424, 226, 30, "#2b5fa3", 11)
    sheet.disc(374, 284, 56, 11, "#a97c46")
    sheet.box(322, 172, 424, 284, "#3a73bd", 16)
    sheet.disc(373, 176, 51, 13, "#2b5fa3")
    sheet.disc(373, 179, 44, 9, "#5b3a24")
    return sheet.finished()


def _apple(sheet: Sheet, x: float, y: float, colour: str, shade: str) -> None:
    sheet.disc(x, y + 34, 36, 8, "#a97c46")
    sheet.disc(x, y, 38, 36, shade)
    sheet.disc(x - 4, y - 3, 33, 32, colour)
    sheet.disc(x - 15, y - 14, 7, 8, "#f1d9d0" if colour == "#c8372d" else "#dcebbd")
    sheet.line((x, y - 30, x + 5, y - 48), "#6b4a2b", 5)


PICTURES: dict[str, Callable[[], Image.Image]] = {"receipt.png": receipt, "rain.png": rain, "table.png": table}


def main(folder: Path = FOLDER) -> None:
    """Write all of them."""
    for name, draw in PICTURES.items():
        draw().save(folder / name, "PNG", optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
