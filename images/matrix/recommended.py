"""Which images are recommended for an arch: an ordered list; a machine gets the first that its driver runs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from images.core import UsageError
from images.matrix.arch import Arch, parse_arch
from images.matrix.drivers import Driver, driver_suffices, has_ptx, oldest_driver, parse_driver
from images.matrix.model import Matrix, RecommendedStack
from images.matrix.rules import Judge
from images.matrix.variants import Variant, Variants, backend_of

NOT_LISTED = 1_000


def entries_of(matrix: Matrix, lowest: Arch) -> Sequence[RecommendedStack]:
    """The ordered list of an arch, empty for one that has none."""
    return matrix.recommended.archs.get(lowest.capability, ())


Rank = tuple[int, int, bool, bool, int]


def ranking(matrix: Matrix, lowest: Arch) -> Callable[[Variant], Rank]:
    """How well images suit cards of which ``lowest`` is the oldest arch; the least is the best.

    First its place in the list of that arch, then that of its stack, then the attention that is recommended with the
    stack, then vLLM before the slower server on transformers, then the image with the fewest other archs.
    """
    places: dict[tuple[str, str], int] = {}
    stacks: dict[str, int] = {}
    for at, one in enumerate(entries_of(matrix, lowest)):
        places[one.stack, one.attention] = at
        stacks.setdefault(one.stack, at)
    usual = matrix.recommended.stacks

    def rank_of(variant: Variant) -> Rank:
        at = places.get((variant.stack, variant.attention), NOT_LISTED)
        stack = stacks.get(variant.stack, NOT_LISTED)
        unusual = at == NOT_LISTED and (stack != NOT_LISTED or variant.attention != usual[variant.stack])
        return (at, stack, unusual, variant.backend == "transformers", len(variant.archs))

    return rank_of


def place(matrix: Matrix, variant: Variant, lowest: Arch) -> int:
    """Where a variant stands in the list of ``lowest``, from 0; NOT_LISTED where it does not."""
    return ranking(matrix, lowest)(variant)[0]


def best(
    matrix: Matrix,
    among: Sequence[Variant],
    lowest: Arch,
    driver: Driver | None = None,
    locked: Mapping[str, bool] | None = None,
) -> Variant | None:
    """Of variants that carry the cards' archs, the best that ``driver`` runs (None: any driver); None if there is none.

    Where the driver runs nothing of the list, an image of a locked stack goes before the others; ``locked`` says of
    each lock's name whether it is.
    """
    rank_of = ranking(matrix, lowest)
    first = min(among, key=rank_of, default=None)
    if first is None or driver is None or driver_suffices(driver, first.min_driver):
        return first
    able = [variant for variant in among if driver_suffices(driver, variant.min_driver)]
    found = min(able, key=rank_of, default=None)
    if found is None or rank_of(found)[0] != NOT_LISTED:
        return found
    return min((variant for variant in able if (locked or {}).get(variant.lock, False)), key=rank_of, default=found)


def listed_below(matrix: Matrix, among: Iterable[Variant], lowest: Arch, than: Variant) -> list[Variant]:
    """Those of the list of ``lowest`` which run on older drivers than ``than``, one for each place.

    ``among`` are variants that carry the cards' archs.
    """
    rank_of = ranking(matrix, lowest)
    out = [than]
    for variant in sorted((one for one in among if rank_of(one)[0] != NOT_LISTED), key=rank_of):
        if older(variant, out[-1]):
            out.append(variant)
    return out[1:]


def older(variant: Variant, than: Variant) -> bool:
    """Whether a variant runs on drivers that are too old for another."""
    if variant.min_driver is None or than.min_driver is None:
        return False
    return parse_driver(variant.min_driver) < parse_driver(than.min_driver)


@dataclass(frozen=True)
class Recommendation:
    """An entry of an arch's list: its place from 1 on, the variant for just this arch, the reason ("" for none)."""

    arch: Arch
    place: int
    variant: Variant
    why: str


def recommendations(matrix: Matrix, variants: Variants) -> list[Recommendation]:
    """Every entry of every list, in the matrix's order."""
    single = {(v.stack, v.attention, v.archs): v for v in variants.valid.values() if len(v.archs) == 1}
    out = []
    for text in matrix.archs:
        arch = parse_arch(text)
        for at, one in enumerate(entries_of(matrix, arch), 1):
            if found := single.get((one.stack, one.attention, (arch,))):
                out.append(Recommendation(arch, at, found, one.why))
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
