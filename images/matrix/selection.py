"""From selectors to the variants to build; axes left open take the recommended value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from images.core import UsageError, closest
from images.matrix.arch import Arch, parse_arch
from images.matrix.drivers import Driver, driver_suffices, driver_supports, parse_driver
from images.matrix.model import ATTENTIONS, Attention, Matrix
from images.matrix.no_image import driver_does_not_serve, driver_too_old, no_image, nothing, refused
from images.matrix.recommended import best, listed_below
from images.matrix.rules import Judge
from images.matrix.variants import Excluded, Point, Variant, Variants, backend_of, point_id

ArchList = tuple[Arch, ...]
Locked = Mapping[str, bool] | None


@dataclass(frozen=True)
class Selectors:
    """What the user named; empty means open. ``archs`` holds one arch list per image wanted.

    ``driver`` is the one that the images must run on; ``here`` that of this machine, which decides between images
    for its own list of archs where it runs one of them, and forbids nothing.
    """

    archs: tuple[ArchList, ...] = ()
    cuda: str | None = None
    attention: Attention | None = None
    only: tuple[str, ...] = ()
    all: bool = False
    driver: Driver | None = None
    here: Driver | None = None


def read_selectors(
    matrix: Matrix,
    archs: Iterable[str] = (),
    cuda: str | None = None,
    attention: str | None = None,
    only: Iterable[str] = (),
    every: bool = False,
    driver: str | None = None,
) -> Selectors:
    """Selectors from the command line's words; ``"7.5 8.6"`` is one image for both. Raises UsageError."""
    lists = tuple(tuple(sorted({parse_arch(word) for word in text.replace(",", " ").split()})) for text in archs)
    known_cuda = {stack.cuda for stack in matrix.stacks.values() if stack.cuda}
    if cuda is not None and cuda not in known_cuda:
        raise UsageError(
            f"no stack is built for CUDA {cuda}",
            do=f"nearest: {closest(cuda, sorted(known_cuda))}. Known: {', '.join(sorted(known_cuda))}",
            where=matrix.where("stacks"),
        )
    if attention is not None and attention not in ATTENTIONS:
        raise UsageError(
            f"{attention!r} is not an attention backend",
            do=f"nearest: {closest(attention, ATTENTIONS)}. Known: {', '.join(ATTENTIONS)}",
        )
    return Selectors(lists, cuda, attention, tuple(only), every, parse_driver(driver) if driver else None)


def select(matrix: Matrix, variants: Variants, wanted: Selectors, locked: Locked = None) -> tuple[Variant, ...]:
    """The chosen variants, in the matrix's order.

    Where the driver runs nothing that is recommended, an image of a locked stack goes before the others; ``locked``
    says of each lock's name whether it is. Raises NoImageFits when a rule excludes all that was asked for (with the
    rule, its source and the nearest variant) or the named driver runs none of it, NothingSelected when the words match
    nothing.
    """
    pool = _pool(variants, wanted)
    if wanted.only and not pool:
        raise nothing(variants, wanted.only)
    if not wanted.archs:
        chosen = pool if wanted.all or wanted.only else _recommended(matrix, pool, wanted.driver)
        if wanted.driver is not None:
            chosen = [v for v in chosen if driver_suffices(wanted.driver, v.min_driver)]
        if not chosen:
            raise nothing(variants, wanted.only)
        return tuple(chosen)
    ids = {v.id for asked in wanted.archs for v in _for_archs(matrix, variants, pool, asked, wanted, locked)}
    return tuple(v for v in variants.valid.values() if v.id in ids)


def explain(matrix: Matrix, variants: Variants, wanted: Selectors) -> tuple[Excluded, ...]:
    """Every excluded point that the selectors speak of, in the matrix's order."""
    judge = Judge(matrix)
    listed, foreign = [], []
    for asked in wanted.archs:
        # An arch of no image of its own (6.1, 8.7) is not among the points: judge it as if it were.
        covering = covering_list(matrix, asked)
        if any(arch.capability not in matrix.archs for arch in asked) or covering not in _known(variants):
            foreign += _judged(matrix, judge, asked, wanted)
        else:
            listed.append(covering)

    def matches(excluded: Excluded) -> bool:
        point = excluded.point
        return (
            (not wanted.archs or point.archs in listed)
            and wanted.cuda in (None, matrix.stacks[point.stack].cuda)
            and wanted.attention in (None, point.attention)
            and (not wanted.only or any(fnmatchcase(excluded.id, glob) for glob in wanted.only))
        )

    return (*(excluded for excluded in variants.excluded if matches(excluded)), *foreign)


def _known(variants: Variants) -> set[ArchList]:
    return {v.archs for v in variants.valid.values()} | {e.point.archs for e in variants.excluded}


def _pool(variants: Variants, wanted: Selectors) -> list[Variant]:
    """The variants that the selectors allow, whatever their archs and drivers."""
    pool = list(variants.valid.values())
    if wanted.cuda is not None or wanted.attention is not None:
        pool = [v for v in pool if _stack_and_attention_match(v, wanted)]
    if wanted.only:
        pool = [v for v in pool if any(fnmatchcase(v.id, glob) for glob in wanted.only)]
    return pool


def candidates(
    matrix: Matrix, variants: Variants, asked: ArchList, wanted: Selectors
) -> tuple[Arch, list[Variant], Driver | None]:
    """What is chosen from for one arch list: the oldest arch, whose list decides, the variants that carry all of the
    archs, and the driver that they must run on (None: whatever it is).
    """
    archs = covering_list(matrix, asked)
    among = _carrying(_pool(variants, wanted), archs)
    return archs[0], among, _driver(wanted, asked, among)


def _driver(wanted: Selectors, asked: ArchList, among: Iterable[Variant]) -> Driver | None:
    """The driver that was named; else this machine's, where it serves the cards and runs an image for them."""
    if wanted.driver is None and wanted.here is not None and not _serves(wanted.here, asked, among):
        return None
    return wanted.driver or wanted.here


def _carrying(pool: Sequence[Variant], archs: ArchList) -> list[Variant]:
    """The variants with all of these archs. Those of a large matrix share a few lists, and each is looked into once:
    that is what keeps a question to a catalogue of 10,000 images short.
    """
    wanted = set(archs)
    lists = {id(variant.archs): variant.archs for variant in pool}
    carrying = {key for key, listed in lists.items() if wanted <= set(listed)}
    return [variant for variant in pool if id(variant.archs) in carrying]


def _stack_and_attention_match(variant: Variant, wanted: Selectors) -> bool:
    return wanted.cuda in (None, variant.cuda) and wanted.attention in (None, variant.attention)


def _recommended(matrix: Matrix, pool: list[Variant], driver: Driver | None) -> list[Variant]:
    """No arch said: of each single arch the images of its list, or the best one; with ``driver`` the first it runs."""
    chosen: dict[str, Variant] = {}
    for text in matrix.archs:
        arch = parse_arch(text)
        among = [v for v in pool if v.archs == (arch,)]
        if (first := best(matrix, among, arch, driver)) is None:
            continue
        later = listed_below(matrix, among, arch, first) if driver is None else ()
        chosen |= {v.id: v for v in (first, *later)}
    return list(chosen.values())


def _for_archs(
    matrix: Matrix, variants: Variants, pool: list[Variant], asked: ArchList, wanted: Selectors, locked: Locked
) -> list[Variant]:
    """The images for one arch list. Raises as `select` does."""
    archs = _stand_in(matrix, asked, wanted)
    carrying = _carrying(pool, archs)
    if not carrying:
        listed = [e for e in explain(matrix, variants, wanted) if e.point.archs == archs]
        raise no_image(matrix, variants, asked, listed)
    driver = _driver(wanted, asked, carrying)
    if wanted.driver is not None:
        _check_driver(matrix, carrying, asked, archs, wanted.driver)
    if wanted.all or wanted.only:
        return [v for v in carrying if driver is None or driver_suffices(driver, v.min_driver)]
    found = best(matrix, carrying, archs[0], driver, locked)
    return [found] if found else []


def _serves(driver: Driver, asked: ArchList, among: Iterable[Variant]) -> bool:
    """Whether a driver serves the cards, and runs one of the images for them."""
    known = all(driver_supports(driver, arch) for arch in asked)
    return known and any(driver_suffices(driver, v.min_driver) for v in among)


def _check_driver(matrix: Matrix, among: list[Variant], asked: ArchList, archs: ArchList, driver: Driver) -> None:
    """Raise NoImageFits for a driver that was named and does not serve the cards, or runs none of the images."""
    if _serves(driver, asked, among):
        return
    first = best(matrix, among, archs[0]) or among[0]
    listed = (first, *listed_below(matrix, among, archs[0], first))
    for arch in asked:
        if not driver_supports(driver, arch):
            raise driver_does_not_serve(arch.capability, arch, driver, listed)
    raise driver_too_old(" ".join(arch.capability for arch in asked), archs, among, listed, driver)


def covering_list(matrix: Matrix, asked: ArchList) -> ArchList:
    """The arch list whose image serves these cards: 12.1 is served by 12.0, 10.3 by 10.0."""
    listed = [parse_arch(text) for text in matrix.archs]
    out = set()
    for arch in asked:
        below = [one for one in listed if one.runs_on(arch)]
        out.add(max(below) if below else arch)
    return tuple(sorted(out))


def _stand_in(matrix: Matrix, asked: ArchList, wanted: Selectors) -> ArchList:
    """As `covering_list`, but only where no rule forbids the card itself (8.7 could run 8.6 code, yet must not)."""
    foreign = tuple(arch for arch in asked if arch.capability not in matrix.archs)
    if foreign:
        judged = _judged(matrix, Judge(matrix), foreign, wanted)
        tried = sum(1 for _ in _candidate_points(matrix, foreign, wanted))
        if len(judged) == tried:
            raise refused(matrix, asked, judged)
    return covering_list(matrix, asked)


def _candidate_points(matrix: Matrix, archs: ArchList, wanted: Selectors) -> Iterable[Point]:
    for name, stack in matrix.stacks.items():
        if stack.cuda is None or wanted.cuda not in (None, stack.cuda):
            continue
        for attention in matrix.attention:
            backend = backend_of(stack, attention)
            if wanted.attention in (None, attention) and backend in stack.backends:
                yield Point(name, backend, attention, archs)


def _judged(matrix: Matrix, judge: Judge, archs: ArchList, wanted: Selectors) -> list[Excluded]:
    out = []
    for point in _candidate_points(matrix, archs, wanted):
        if rules := judge.rules_against(point.stack, point.backend, point.attention, archs):
            out.append(Excluded(point, point_id(matrix, point), rules, ""))
    return out
