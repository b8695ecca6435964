"""matrix.yaml for tests: the project's own, and edited copies of its text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from images.matrix.arch import parse_arch
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


def text_with_lists(**lists: Sequence[str]) -> str:
    """The text of matrix.yaml with other recommendations: ``sm86=("cu130 flash-attn", "cu124 xformers why it is")``.

    All its images are within one budget.
    """
    data = yaml.safe_load(text())
    for name, entries in lists.items():
        words = [entry.split(" ", 2) for entry in entries]
        listed = [dict(zip(("stack", "attention", "why"), one, strict=False)) for one in words]
        data["recommended"]["archs"][str(parse_arch(name))] = listed
    data["sizes"] = [{"id": "all", "images": ["*"], "zstd": 9000, "unpacked": 90_000}]
    return yaml.safe_dump(data, sort_keys=False)


def with_lists(**lists: Sequence[str]) -> Matrix:
    """The matrix of `text_with_lists`, checked."""
    return check_matrix(parse_matrix(text_with_lists(**lists)))


def line_of(piece: str, after: str = "") -> int:
    """The line number of the first ``piece`` after ``after``."""
    start = text().index(after) if after else 0
    return text()[: text().index(piece, start)].count("\n") + 1
