"""From selectors to the variants to build; axes left open take the recommended value."""

from __future__ import annotations

from images.matrix.arch import Arch
from images.matrix.drivers import Driver
from images.matrix.judged import driver_of, for_cards, judge_selection
from images.matrix.model import Matrix
from images.matrix.selectors import ArchList, Locked, Selectors
from images.matrix.variants import Excluded, Variant, Variants


def select(matrix: Matrix, variants: Variants, wanted: Selectors, locked: Locked = None) -> tuple[Variant, ...]:
    """The chosen variants, in the matrix's order.

    Where the driver runs nothing that is recommended, an image of a locked stack goes before the others; ``locked``
    says of each lock's name whether it is. Raises NoImageFits when a rule excludes all that was asked for (with the
    rule, its source and the nearest variant) or the named driver runs none of it, NothingSelected when the words match
    nothing.
    """
    judged = judge_selection(matrix, variants, wanted, locked)
    if judged.refusals:
        raise judged.refusals[0]
    return judged.chosen


def explain(matrix: Matrix, variants: Variants, wanted: Selectors) -> tuple[Excluded, ...]:
    """Every excluded point that the selectors speak of, in the matrix's order."""
    return judge_selection(matrix, variants, wanted).left_out


def candidates(
    matrix: Matrix, variants: Variants, asked: ArchList, wanted: Selectors
) -> tuple[Arch, list[Variant], Driver | None]:
    """What is chosen from for one arch list: the oldest arch, whose list decides, the variants that carry all of the
    archs, and the driver that they must run on (None: whatever it is).
    """
    there = for_cards(matrix, variants, asked, wanted)
    return there.archs[0], list(there.carrying), driver_of(wanted, asked, there.carrying)
