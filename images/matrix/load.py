"""matrix.yaml read and checked as a whole."""

from __future__ import annotations

from pathlib import Path

from images.matrix.model import Matrix
from images.matrix.reader import read_matrix
from images.matrix.recommended import check_recommended
from images.matrix.rules import check_kernels, check_pins
from images.matrix.sizes import check_sizes


def load_matrix(path: Path) -> Matrix:
    """Read a matrix file and check all in it against its rules. Raises UsageError."""
    return check_matrix(read_matrix(path))


def check_matrix(matrix: Matrix) -> Matrix:
    """The same matrix, once everything in it keeps its rules. Raises UsageError for the first that does not."""
    check_pins(matrix)
    check_kernels(matrix)
    check_recommended(matrix)
    check_sizes(matrix)
    return matrix
