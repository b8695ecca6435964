"""Questions to a real model, about pictures whose answer is known: drawn here, no font and no file needed."""

from __future__ import annotations

from dataclasses import dataclass

from images.proof.tiny_model.picture import encode

WHITE, BLACK, RED = b"\xff\xff\xff", b"\x10\x10\x10", b"\xe0\x10\x20"
SIDE = 336
# Seven rows of five dots a digit.
DIGITS = {
    "2": ("01110", "10001", "00001", "00110", "01000", "10000", "11111"),
    "4": ("00010", "00110", "01010", "10010", "11111", "00010", "00010"),
}


@dataclass(frozen=True)
class Question:
    """A question about a picture (a PNG file), and words of which one must be in a right answer."""

    name: str
    text: str
    picture: bytes
    answers: tuple[str, ...]


def circle(colour: bytes = RED, side: int = SIDE) -> bytes:
    """A filled circle on white, as a PNG file."""
    rows = bytearray()
    for y in range(side):
        for x in range(side):
            inside = (2 * x - side) ** 2 + (2 * y - side) ** 2 < (side * 3 // 4) ** 2
            rows += colour if inside else WHITE
    return encode(bytes(rows), side, side)


def number(digits: str, dot: int = 24) -> bytes:
    """Digits of `DIGITS` in black on white, ``dot`` pixels a dot, as a PNG file. Raises KeyError for another digit."""
    glyphs = [DIGITS[digit] for digit in digits]
    width = (6 * len(glyphs) + 3) * dot
    margin = [WHITE * width] * (2 * dot)
    lines = []
    for row in range(7):
        dots = "00" + "0".join(glyph[row] for glyph in glyphs)
        line = b"".join((BLACK if mark == "1" else WHITE) * dot for mark in dots)
        lines += [line + WHITE * (width - len(line) // 3)] * dot
    rows = [*margin, *lines, *margin]
    return encode(b"".join(rows), width, len(rows))


def questions() -> tuple[Question, ...]:
    """What a real model is asked."""
    return (
        Question("circle", "What is the colour of the circle? Answer with one word.", circle(), ("red",)),
        Question("number", "Which number is in the picture? Answer with digits only.", number("42"), ("42",)),
    )
