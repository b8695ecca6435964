"""Which images are recommended for an arch: an ordered list; a machine gets the first that its driver runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from images.core import UsageError
from images.matrix.arch import Arch, parse_arch
from images.matrix.drivers import Driver, driver_suffices, has_ptx, oldest_driver, parse_driver
from images.matrix.model import Matrix, RecommendedStack
from images.matrix.rules import Judge
from images.matrix.variants import Variant, Variants, backend_of

NOT_LISTED = 1_000


def recommended_for(matrix: Matrix, lowest: Arch) -> Sequence[RecommendedStack]:
    """The ordered list of an arch, empty for one that has none."""
    return matrix.recommended.archs.get(lowest.capability, ())


def place(matrix: Matrix, variant: Variant, lowest: Arch) -> int:
    """Where a variant stands in the list of ``lowest``, from 0; NOT_LISTED where it does not."""
    listed = recommended_for(matrix, lowest)
    pairs = [(one.stack, one.attention) for one in listed]
    pair = (variant.stack, variant.attention)
    return pairs.index(pair) if pair in pairs else NOT_LISTED


def rank(matrix: Matrix, variant: Variant, lowest: Arch) -> tuple[int, int, bool, bool, int]:
    """How well an image suits cards of which ``lowest`` is the oldest arch; the least is the best.

    First its place in the list of that arch, then that of its stack, then the attention that is recommended with the
    stack, then vLLM before the slower server on transformers, then the image with the fewest other archs.
    """
    at = place(matrix, variant, lowest)
    stacks = [one.stack for one in recommended_for(matrix, lowest)]
    listed = variant.stack in stacks
    usual = at != NOT_LISTED if listed else variant.attention == matrix.recommended.stacks[variant.stack]
    return (
        at,
        stacks.index(variant.stack) if listed else NOT_LISTED,
        not usual,
        variant.backend == "transformers",
        len(variant.archs),
    )


def best(
    matrix: Matrix,
    among: Iterable[Variant],
    lowest: Arch,
    driver: Driver | None = None,
    locked: Mapping[str, bool] | None = None,
) -> Variant | None:
    """Of variants that carry the cards' archs, the best that ``driver`` runs (None: any driver); None if there is none.

    Where the driver runs nothing of the list, an image of a locked stack goes before the others; ``locked`` says of
    each lock's name whether it is.
    """
    ranked = sorted(among, key=lambda variant: rank(matrix, variant, lowest))
    able = [variant for variant in ranked if driver is None or driver_suffices(driver, variant.min_driver)]
    if able and able[0] is not ranked[0] and place(matrix, able[0], lowest) == NOT_LISTED:
        able = [variant for variant in able if (locked or {}).get(variant.lock, False)] or able
    return able[0] if able else None


def for_older_drivers(matrix: Matrix, among: Iterable[Variant], lowest: Arch, than: Variant) -> list[Variant]:
    """Those of the list of ``lowest`` which run on older drivers than ``than``, one for each place.

    ``among`` are variants that carry the cards' archs.
    """
    first: dict[int, Variant] = {}
    for variant in sorted(among, key=lambda variant: rank(matrix, variant, lowest)):
        if (at := place(matrix, variant, lowest)) != NOT_LISTED:
            first.setdefault(at, variant)
    out = [than]
    for variant in first.values():
        if older(variant, out[-1]):
            out.append(variant)
    return out[1:]


def older(variant: Variant, than: Variant) -> bool:
    """Whether a variant runs on drivers that are too old for another."""
    if variant.min_driver is None or than.min_driver is None:
        return False
    return parse_driver(variant.min_driver) < parse_driver(than.min_driver)


def recommended_variants(matrix: Matrix, variants: Variants) -> list[tuple[Arch, RecommendedStack, Variant]]:
    """Every entry of every list with the variant for just its arch, in the matrix's order."""
    single = {(v.stack, v.attention, v.archs): v for v in variants.valid.values() if len(v.archs) == 1}
    out = []
    for text in matrix.archs:
        arch = parse_arch(text)
        for one in recommended_for(matrix, arch):
            if found := single.get((one.stack, one.attention, (arch,))):
                out.append((arch, one, found))
    return out


def check_recommended(matrix: Matrix) -> None:
    """Raise UsageError for the first entry that is no variant, stands twice, or is never reached, with its place."""
    judge = Judge(matrix)
    for arch, listed in matrix.recommended.archs.items():
        archs = (parse_arch(arch),)
        before: list[tuple[RecommendedStack, Driver]] = []
        for index, one in enumerate(listed):
            at = ("recommended", "archs", arch, index)
            name = f"{matrix._path}: recommended.archs.{arch}.{index}: {one.stack} with {one.attention}"
            where = matrix.where(*at)
            if (one.stack, one.attention) in [(first.stack, first.attention) for first, _ in before]:
                raise UsageError(f"{name} stands there twice", do="remove one of them", where=where)
            stack = matrix.stacks[one.stack]
            backend = backend_of(stack, one.attention)
            if stack.cuda is None or backend not in stack.backends:
                missing = "no stack for cards" if stack.cuda is None else f"a stack without {backend}"
                raise UsageError(f"{name}: {one.stack} is {missing}", do=_instead(matrix, judge, archs), where=where)
            if rules := judge.rules_against(one.stack, backend, one.attention, archs):
                raise UsageError(
                    f"{name} is excluded by the rule {rules[0].id}",
                    cause=f"{rules[0].reason} [{rules[0].mark}: {rules[0].source}]",
                    do=_instead(matrix, judge, archs),
                    where=where,
                )
            driver = oldest_driver(matrix.toolkits[stack.cuda], ptx=has_ptx(archs))
            for first, enough in before:
                if enough <= driver:
                    raise UsageError(
                        f"{name} can never be reached",
                        cause=f"it needs driver {driver}, and {first.stack} before it runs from {enough} on",
                        do="put it before that one, or remove one of them",
                        where=where,
                    )
            before.append((one, driver))


def _instead(matrix: Matrix, judge: Judge, archs: tuple[Arch, ...]) -> str:
    """What may stand there."""
    possible = [
        f"{name} with {attention}"
        for name, stack in matrix.stacks.items()
        for attention in matrix.attention
        if stack.cuda is not None
        and (backend := backend_of(stack, attention)) in stack.backends
        and not judge.rules_against(name, backend, attention, archs)
    ]
    return f"one of: {', '.join(possible)}" if possible else "remove the entry: no image is built for this arch"
