"""matrix.yaml for tests: the project's own, and edited copies of its text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from images.matrix.load import check_matrix
from images.matrix.model import Matrix
from images.matrix.reader import parse_matrix
from images.matrix.variants import Variants, make_variants

ROOT = Path(__file__).resolve().parents[2]


@cache
def text() -> str:
    return (ROOT / "matrix.yaml").read_text(encoding="utf-8")


@cache
def matrix() -> Matrix:
    return parse_matrix(text())


@cache
def variants() -> Variants:
    return make_variants(matrix())


def edited(*changes: tuple[str, str]) -> Matrix:
    """The matrix with pieces of its text replaced, once each; every piece must be there."""
    new = text()
    for old, instead in changes:
        assert old in new, old
        new = new.replace(old, instead, 1)
    return check_matrix(parse_matrix(new))


def line_of(piece: str, after: str = "") -> int:
    """The line number of the first ``piece`` after ``after``."""
    start = text().index(after) if after else 0
    return text()[: text().index(piece, start)].count("\n") + 1
