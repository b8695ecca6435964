"""Sizes: what a build needs, and budgets, how large an image may be, by its id. Pure.

Every recommended image and every one for the CPU has a budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from images.core import UsageError, closest
from images.matrix.arch import parse_arch
from images.matrix.model import Budget, Matrix
from images.matrix.variants import Point, backend_of, point_id

# What a build needs free on the engine's disk, in bytes, some room included. Measured on the first image of a lock:
# NVIDIA's layer, the environment, its copy in the runtime image, and the kernels' own environment.
FIRST_IMAGE = {"vllm": 18_000_000_000, "transformers": 10_000_000_000}


def budget_of(matrix: Matrix, variant_id: str) -> Budget | None:
    """The budget of an image; None for one that has none."""
    return next((budget for budget in matrix.sizes if _is_for(budget, variant_id)), None)


def ids_with_budget(matrix: Matrix) -> list[str]:
    """The images that need a budget: the recommended ones, each once, then those for the CPU."""
    return list(dict.fromkeys(_points(matrix)))


def _points(matrix: Matrix) -> Iterator[str]:
    for arch, listed in matrix.recommended.archs.items():
        for one in listed:
            backend = backend_of(matrix.stacks[one.stack], one.attention)
            yield point_id(matrix, Point(one.stack, backend, one.attention, (parse_arch(arch),)))
    for name, stack in matrix.stacks.items():
        if stack.cuda is None:
            attention = matrix.recommended.stacks[name]
            yield point_id(matrix, Point(name, backend_of(stack, attention), attention, ()))


def _is_for(budget: Budget, variant_id: str) -> bool:
    return any(fnmatchcase(variant_id, glob) for glob in budget.images)


def check_sizes(matrix: Matrix) -> None:
    """Raise UsageError for an image without a budget or with two, and for a glob that is for none of those images."""
    wanted = ids_with_budget(matrix)
    for index, budget in enumerate(matrix.sizes):
        for at, glob in enumerate(budget.images):
            if not any(fnmatchcase(one, glob) for one in wanted):
                raise UsageError(
                    f"{matrix._path}: sizes.{index}: {glob!r} is for no recommended image and none for the CPU",
                    do=f"nearest: {closest(glob, wanted)}. Known: {', '.join(wanted)}",
                    where=matrix.where("sizes", index, "images", at),
                )
    for one in wanted:
        rows = [index for index, budget in enumerate(matrix.sizes) if _is_for(budget, one)]
        if not rows:
            raise UsageError(
                f"{matrix._path}: sizes: {one} has no budget",
                cause="every recommended image has one, and every image for the CPU",
                do="name it in `images` of a row, or add one; ./inv weigh says what it weighs once it is built",
                where=matrix.where("sizes"),
            )
        if len(rows) > 1:
            named = " and ".join(matrix.sizes[index].id for index in rows)
            raise UsageError(
                f"{matrix._path}: sizes.{rows[1]}: {one} has two budgets: {named}",
                do="narrow the globs of one of them",
                where=matrix.where("sizes", rows[1]),
            )
