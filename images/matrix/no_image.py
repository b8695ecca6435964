"""The errors of a selection that finds no image: what is against it, and the nearest thing that can be. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from images.core import NoImageFits, NothingSelected, closest
from images.matrix.arch import Arch
from images.matrix.drivers import Driver, driver_branches, parse_driver
from images.matrix.model import Matrix
from images.matrix.recommended import NOT_LISTED, entries_of
from images.matrix.variants import Excluded, Variant, Variants

ArchList = tuple[Arch, ...]


def no_image(
    matrix: Matrix, variants: Variants, asked: ArchList, listed: list[Excluded]
) -> NoImageFits | NothingSelected:
    """No image carries all of these archs; ``listed`` are the points for them that rules exclude."""
    if listed:
        return refused(matrix, asked, listed)
    lists = sorted({" ".join(map(str, v.archs)) for v in variants.valid.values() if v.archs})
    return NothingSelected(
        f"no image is built for {' and '.join(map(str, asked))} together",
        cause="images are built for single archs and for the families of matrix.yaml",
        do=f"ask for one image each (--arch A --arch B), or for one of: {'; '.join(lists)}",
        where=matrix.where("families"),
    )


def refused(matrix: Matrix, asked: ArchList, excluded: list[Excluded]) -> NoImageFits:
    """The rule that excludes most of the points speaks, at the recommended stack's point; the others are counted.

    One written in matrix.yaml says more than one that follows from a stack's list of archs.
    """
    written = {rule.id for rule in matrix.exclude}
    counts = Counter(rule.id for e in excluded for rule in e.rules if rule.id in written)
    counts = counts or Counter(rule.id for e in excluded for rule in e.rules)
    governing = counts.most_common(1)[0][0]
    stacks = [one.stack for one in entries_of(matrix, asked[0])] if asked else []

    def order(e: Excluded) -> tuple[bool, bool, int, int]:
        spoken = all(rule.id != governing for rule in e.rules)
        others = 0 if asked else len(e.rules)  # of all cards, one that nothing else speaks against
        return (spoken, not e.nearest, others, stacks.index(e.point.stack) if e.point.stack in stacks else NOT_LISTED)

    hinted = min(excluded, key=order)
    rule = next((rule for rule in hinted.rules if rule.id == governing), hinted.rules[0])
    others = f" (and {len(excluded) - 1} more; see invoke explain)" if len(excluded) > 1 else ""
    do = f"take {hinted.nearest} instead: ./inv build --only '{hinted.nearest}'" if hinted.nearest else _help(asked)
    return NoImageFits(
        f"no image{_for(asked)}: {hinted.id} is excluded by the rule {rule.id}{others}",
        cause=rule.reason,
        do=do,
        where=f"[{rule.mark}] {rule.source}",
    )


def _help(asked: ArchList) -> str:
    """For cards that no stack serves."""
    if any(arch.capability in ("5.3", "6.2", "7.2", "8.7", "11.0") for arch in asked):
        return "use NVIDIA's Jetson containers for this module, or another card"
    return "llama.cpp runs Qwen2.5-VL on older cards (its GGUF form); or use the cpu image: ./inv build --only 'cpu*'"


def _for(asked: ArchList) -> str:
    return f" for {' '.join(map(str, asked))}" if asked else ""


def nothing(variants: Variants, only: Sequence[str], asked: ArchList = ()) -> NothingSelected:
    """The globs, or without globs the other selectors, match nothing (that is for the archs ``asked``)."""
    close = closest(only[0], list(variants.valid)) if only else ""
    return NothingSelected(
        f"nothing is selected by {' '.join(one or repr(one) for one in only) or 'these selectors'}{_for(asked)}",
        do=f"nearest id: {close}. All ids: ./inv plan --all" if close else "see all ids with: ./inv plan --all",
    )


def driver_too_old(
    names: str, archs: ArchList, every: Sequence[Variant], best: Sequence[Variant], driver: Driver
) -> NoImageFits:
    """``driver`` runs none of ``every`` image for cards that are called ``names`` ("": all that was selected).

    ``best`` are those to take instead, for the newest drivers first.
    """
    least = min(parse_driver(v.min_driver) for v in every if v.min_driver)
    carried = f"image for {' '.join(map(str, archs))}" if archs else "other"
    return NoImageFits(
        f"driver {driver} is too old for every image {f'for {names}' if names else 'that is selected'}",
        cause=f"{best[0].id} needs {best[0].min_driver}, and no {carried} runs below {least}",
        do=_install(best),
        where="CUDA release notes, table 3",
    )


def driver_does_not_serve(name: str, arch: Arch, driver: Driver, best: Sequence[Variant]) -> NoImageFits:
    """``driver`` is of a branch that does not know a card called ``name`` yet, or no longer serves it.

    ``best`` are the images for the card, for the newest drivers first.
    """
    first, last = driver_branches(arch)
    if last is not None and driver.branch > last:
        cause = f"branch {last} is the last for Volta and older cards (unverified)"
        return NoImageFits(
            f"driver {driver} does not serve {name}", cause=cause, do=f"install a driver of branch {last} or older"
        )
    enough = [one for one in best if one.min_driver is not None and parse_driver(one.min_driver).branch >= first]
    return NoImageFits(
        f"driver {driver} does not know {name}",
        cause=f"branch {first} is the first for cards of compute capability {arch}",
        do=_install(enough) if enough else f"install a driver of branch {first} or newer",
        where="CUDA release notes, table 3",
    )


def _install(best: Sequence[Variant]) -> str:
    """The driver for the first of these, and the oldest that does for one of them."""
    first, last = best[0], best[-1]
    also = f"; {last.min_driver} is enough for {last.id}" if last is not first else ""
    return f"install driver {first.min_driver} or newer{also}"
