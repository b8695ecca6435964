"""Which driver a selection went by, in words, and what other drivers get. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from images.matrix.arch import Arch
from images.matrix.drivers import Driver, driver_branches, parse_driver
from images.matrix.judged import covering_list
from images.matrix.model import Matrix
from images.matrix.recommended import (
    NOT_LISTED,
    Recommendation,
    best,
    listed_below,
    older,
    place,
    recommendations,
)
from images.matrix.selection import candidates
from images.matrix.selectors import Selectors
from images.matrix.variants import Variant, Variants


def for_older_drivers(matrix: Matrix, variants: Variants, wanted: Selectors, than: Variant) -> list[Variant]:
    """What the list for the first archs of ``wanted`` has for drivers that are too old for ``than``, in its order."""
    lowest, among, _ = candidates(matrix, variants, wanted.archs[0], wanted)
    return listed_below(matrix, among, lowest, than)


def is_recommended(matrix: Matrix, variant: Variant, wanted: Selectors) -> bool:
    """Whether a variant stands in the list for the first archs of ``wanted``."""
    return place(matrix, variant, covering_list(matrix, wanted.archs[0])[0]) != NOT_LISTED


def recommended_for(matrix: Matrix, variants: Variants, wanted: Selectors) -> list[Recommendation]:
    """What is recommended for each single arch that was named (of an arch list, for each), or without archs for all.

    Nothing where stack, attention or variants were named: then it is not the recommendation that chose.
    """
    if wanted.cuda or wanted.attention or wanted.only:
        return []
    named = {arch for asked in wanted.archs for arch in covering_list(matrix, asked)}
    every = recommendations(matrix, variants)
    return [one for one in every if not wanted.archs or one.arch in named]


def driver_lines(
    matrix: Matrix, variants: Variants, wanted: Selectors, locked: Mapping[str, bool] | None = None
) -> list[str]:
    """For people: by which driver `select` chose for each arch list, and what to type for an older one.

    Empty where no driver had a say: no arch was named, or the variants were named themselves.
    """
    if wanted.all or wanted.only:
        return []
    lines = (_line(matrix, variants, asked, wanted, locked) for asked in wanted.archs)
    return [line for line in lines if line]


def _line(
    matrix: Matrix, variants: Variants, asked: tuple[Arch, ...], wanted: Selectors, locked: Mapping[str, bool] | None
) -> str:
    lowest, among, driver = candidates(matrix, variants, asked, wanted)
    first, chosen = best(matrix, among, lowest), best(matrix, among, lowest, driver, locked)
    if first is None or chosen is None:
        return ""
    names = " ".join(arch.capability for arch in asked)
    too_old = f" is too old for {first.id}, which needs {first.min_driver}" if chosen is not first else ""
    if too_old and place(matrix, chosen, lowest) == NOT_LISTED:
        too_old += ", and runs none of the recommended ones"
    if wanted.driver is not None:
        return f"{names}: {chosen.id}; driver {driver}{too_old}" if too_old else ""
    if driver is not None:
        said = f"this machine's driver {driver}{too_old}" if too_old else f"for this machine's driver {driver}"
        return f"{names}: {chosen.id}; {said}; for another one: --driver V"
    here = f"this machine's driver {wanted.here} runs no image for {names}; " if wanted.here else ""
    granted = f"{names}: {here}driver {first.min_driver} or newer is taken for granted"
    return f"{granted}; {_for_an_older_one(matrix, asked, lowest, among, first, locked)}"


def _for_an_older_one(
    matrix: Matrix,
    asked: tuple[Arch, ...],
    lowest: Arch,
    among: list[Variant],
    first: Variant,
    locked: Mapping[str, bool] | None,
) -> str:
    """What to type where the driver is older than the first image needs, and what that gives."""
    next_best = best(matrix, [variant for variant in among if older(variant, first)], lowest)
    if next_best is not None and next_best.min_driver is not None:
        branch = max(parse_driver(next_best.min_driver).branch, *(driver_branches(arch)[0] for arch in asked))
        found = best(matrix, among, lowest, Driver((branch,)), locked)
        if found is not None and older(found, first):
            return f"for an older one: --driver {branch} ({found.id})"
    return "no image for it runs on an older one"
