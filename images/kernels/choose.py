"""Which kernels the selectors of `invoke kernels` name. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from images.core import NothingSelected, closest
from images.matrix import Kernel, Matrix, Selectors, Variants
from images.matrix import selection as planning


def choose_kernels(
    matrix: Matrix, variants: Variants, wanted: Selectors, locked: Mapping[str, bool] | None = None
) -> tuple[Kernel, ...]:
    """The kernels of the variants that `plan` would choose, in the matrix's order. ``locked`` as `select` takes it.

    ``only`` takes globs on kernels' ids as well: then, as with ``all``, those beside the variants take part.
    Raises what `plan.select` raises (a rule that excludes all, with its reason), NothingSelected where no kernel is
    compiled for what is chosen.
    """
    named = [k for k in variants.kernels if any(fnmatchcase(k.id, glob) for glob in wanted.only)]
    if named:
        chosen = {k for k in named if _matches(k, wanted)}
    else:
        needed = (variant.kernel for variant in planning.select(matrix, variants, wanted, locked))
        chosen = {kernel for kernel in needed if kernel}
        if wanted.all:
            chosen |= {kernel for kernel in variants.extra if _matches(kernel, wanted)}
    if not chosen:
        close = closest(wanted.only[0], [k.id for k in variants.kernels]) if wanted.only else ""
        raise NothingSelected(
            "no attention kernel is compiled for what is selected",
            cause="its attention comes from the index as a wheel that holds code for its cards",
            do=f"nearest kernel: {close}" if close else "./inv kernels --list shows all that are compiled",
        )
    return tuple(kernel for kernel in variants.kernels if kernel in chosen)


def users(variants: Variants, kernel: Kernel) -> list[str]:
    """The ids of the variants that share a kernel; none for one of the matrix's extra ones."""
    return [variant.id for variant in variants.valid.values() if variant.kernel == kernel]


def _matches(kernel: Kernel, wanted: Selectors) -> bool:
    return (
        (not wanted.archs or any(set(asked) <= set(kernel.archs) for asked in wanted.archs))
        and wanted.cuda in (None, kernel.cuda)
        and wanted.attention in (None, kernel.package)
    )
