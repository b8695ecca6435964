"""The one judge of a selection, for `plan` and `explain`: which images it means, what it leaves out, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from images.core import NoImageFits, NothingSelected
from images.matrix.arch import Arch, parse_arch
from images.matrix.drivers import Driver, driver_branches, driver_suffices, driver_supports
from images.matrix.model import Attention, Backend, Matrix, Rule, When
from images.matrix.no_image import driver_does_not_serve, driver_too_old, no_image, nothing, refused
from images.matrix.recommended import best, listed_below
from images.matrix.rules import Judge
from images.matrix.selectors import ArchList, Locked, Selectors
from images.matrix.variants import Excluded, Nearest, Point, Variant, Variants, backend_of, point_id

Refusal = NoImageFits | NothingSelected


@dataclass(frozen=True)
class Judged:
    """``chosen`` in the matrix's order; ``left_out``: every point that the selectors speak of and that is no image for
    them; ``refusals``: the error of each list of archs (or of the whole selection) that has no image.
    """

    chosen: tuple[Variant, ...]
    left_out: tuple[Excluded, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class ForCards:
    """What there is for cards of ``asked``: ``archs`` are those whose images serve them, ``carrying`` the variants with
    all of these that no rule forbids on the cards, ``left_out`` the points that rules exclude.
    """

    asked: ArchList
    archs: ArchList
    carrying: tuple[Variant, ...]
    left_out: tuple[Excluded, ...]


def judge_selection(matrix: Matrix, variants: Variants, wanted: Selectors, locked: Locked = None) -> Judged:
    """What the selectors mean. ``locked`` says of each lock's name whether it is (see `select`). Raises nothing."""
    if not wanted.archs:
        return _without_archs(matrix, variants, wanted)
    judge = variants.judge or Judge(matrix)
    ids: set[str] = set()
    left_out: dict[tuple[str, ArchList], Excluded] = {}
    refusals: list[Refusal] = []
    for asked in wanted.archs:
        there = for_cards(matrix, variants, asked, wanted, judge)
        too_old = _beyond_driver(there.carrying, asked, wanted.driver)
        left_out |= {(one.id, asked): one for one in (*there.left_out, *too_old)}
        if error := _refusal(matrix, variants, there, wanted):
            refusals.append(error)
        else:
            ids |= {variant.id for variant in _chosen(matrix, there, wanted, locked)}
    chosen = tuple(variant for variant in variants.valid.values() if variant.id in ids)
    return Judged(chosen, tuple(left_out.values()), tuple(refusals))


def for_cards(
    matrix: Matrix, variants: Variants, asked: ArchList, wanted: Selectors, judge: Judge | None = None
) -> ForCards:
    """What there is for one list of archs, whatever the driver."""
    asked = tuple(Arch(arch.major, arch.minor) for arch in asked)
    archs = covering_list(matrix, asked)
    cards = _OnCards(matrix, judge or variants.judge or Judge(matrix), asked, archs)
    carrying = _carrying(_pool(variants, wanted), archs)
    if cards.foreign:
        carrying = [one for one in carrying if not cards.rules_against(one.stack, one.backend, one.attention)]
    elif any(archs == one.point.archs for one in variants.excluded) or any(archs == one.archs for one in carrying):
        listed = (one for one in variants.excluded if one.point.archs == archs)
        return ForCards(asked, archs, tuple(carrying), tuple(one for one in listed if _speaks_of(matrix, wanted, one)))
    return ForCards(asked, archs, tuple(carrying), tuple(cards.left_out(variants, wanted)))


@dataclass(frozen=True)
class _OnCards:
    """The rules on cards that are no list of the matrix: an arch without images of its own, or another mixture."""

    matrix: Matrix
    judge: Judge
    asked: ArchList
    archs: ArchList

    @property
    def foreign(self) -> bool:
        """Whether some card is served by the image for another arch, if by any: 12.1 by that for 12.0."""
        return not {*self.asked} <= {*self.archs} or any(
            arch.capability not in self.matrix.archs for arch in self.archs
        )

    def rules_against(self, stack: str, backend: Backend, attention: Attention) -> tuple[Rule, ...]:
        """What forbids an image for ``archs`` on the cards: a rule may speak of either."""
        both = tuple(sorted({*self.asked, *self.archs}))
        return self.judge.rules_against(stack, backend, attention, both)

    def left_out(self, variants: Variants, wanted: Selectors) -> Iterator[Excluded]:
        """Every point that a rule forbids, with the nearest image for these cards."""
        every = _carrying(list(variants.valid.values()), self.archs)
        allowed = [one for one in every if not self.rules_against(one.stack, one.backend, one.attention)]
        nearest = Nearest(self.matrix, {one.id: one for one in allowed})
        any_other = best(self.matrix, allowed, self.archs[0])
        for name, stack in self.matrix.stacks.items():
            for attention in self.matrix.attention if stack.cuda else ():
                backend = backend_of(stack, attention)
                rules = self.rules_against(name, backend, attention)
                # The image is named as it would be; for the card alone where only a rule about the card forbids it.
                ours = rules == self.judge.rules_against(name, backend, attention, self.archs)
                point = Point(name, backend, attention, self.archs if ours else self.asked)
                found = nearest.find(Point(name, backend, attention, self.archs), rules)
                found = found or (any_other.id if any_other else "")
                excluded = Excluded(point, point_id(self.matrix, point), rules, found)
                if rules and _speaks_of(self.matrix, wanted, excluded):
                    yield excluded


def covering_list(matrix: Matrix, asked: ArchList) -> ArchList:
    """The arch list whose image serves these cards: 12.1 is served by 12.0, 10.3 by 10.0."""
    listed = [parse_arch(text) for text in matrix.archs]
    out = set()
    for arch in asked:
        below = [one for one in listed if one.runs_on(arch)]
        out.add(max(below) if below else arch)
    return tuple(sorted(out))


def driver_of(wanted: Selectors, asked: ArchList, among: Iterable[Variant]) -> Driver | None:
    """The driver that was named; else this machine's, where it serves the cards and runs an image for them."""
    if wanted.driver is None and wanted.here is not None and not _serves(wanted.here, asked, among):
        return None
    return wanted.driver or wanted.here


def _without_archs(matrix: Matrix, variants: Variants, wanted: Selectors) -> Judged:
    """No arch said: all that the other selectors allow, or of each single arch what is recommended."""
    pool = _pool(variants, wanted)
    listed = [one for one in variants.excluded if _speaks_of(matrix, wanted, one)]
    chosen = pool if wanted.all or wanted.only else _recommended(matrix, pool, wanted.driver)
    too_old: list[Excluded] = []
    if wanted.driver is not None:
        lists = dict.fromkeys(variant.archs for variant in pool)
        same = ([variant for variant in pool if variant.archs == archs] for archs in lists)
        too_old = [one for among in same for one in _beyond_driver(among, among[0].archs, wanted.driver)]
        beyond = {one.id for one in too_old}
        chosen = [variant for variant in chosen if variant.id not in beyond]
    refusals: list[Refusal] = []
    if not pool:
        refusals.append(refused(matrix, (), listed) if listed else nothing(variants, wanted.only))
    elif not chosen and wanted.driver is not None:
        by_driver = sorted((v for v in pool if v.min_driver), key=lambda v: _branches(v.min_driver), reverse=True)
        refusals.append(driver_too_old("", (), by_driver, by_driver, wanted.driver))
    elif not chosen:
        refusals.append(nothing(variants, wanted.only))
    return Judged(tuple(chosen), (*listed, *too_old), tuple(refusals))


def _branches(driver: str | None) -> tuple[int, ...]:
    return tuple(map(int, (driver or "0").split(".")))


def _refusal(matrix: Matrix, variants: Variants, there: ForCards, wanted: Selectors) -> Refusal | None:
    """Why the cards get no image: no variant carries them, or the driver that was named runs none of it."""
    if not there.carrying:
        if not there.left_out and wanted.only:
            return nothing(variants, wanted.only, there.asked)
        return no_image(matrix, variants, there.asked, list(there.left_out))
    driver = wanted.driver
    if driver is None or _serves(driver, there.asked, there.carrying):
        return None
    first = best(matrix, there.carrying, there.archs[0]) or there.carrying[0]
    listed = (first, *listed_below(matrix, there.carrying, there.archs[0], first))
    for arch in there.asked:
        if not driver_supports(driver, arch):
            return driver_does_not_serve(arch.capability, arch, driver, listed)
    names = " ".join(arch.capability for arch in there.asked)
    return driver_too_old(names, there.archs, there.carrying, listed, driver)


def _chosen(matrix: Matrix, there: ForCards, wanted: Selectors, locked: Locked) -> list[Variant]:
    driver = driver_of(wanted, there.asked, there.carrying)
    if wanted.all or wanted.only:
        return [v for v in there.carrying if driver is None or driver_suffices(driver, v.min_driver)]
    found = best(matrix, there.carrying, there.archs[0], driver, locked)
    return [found] if found else []


def _beyond_driver(among: Sequence[Variant], asked: ArchList, driver: Driver | None) -> list[Excluded]:
    """Those that a driver which was named does not run on these cards, each with the nearest that it does run."""
    if driver is None:
        return []
    out: list[tuple[Variant, Rule]] = []
    for variant in among:
        strangers = [arch for arch in asked if not driver_supports(driver, arch)]
        if strangers:
            out.append((variant, _unserved(driver, strangers[0])))
        elif not driver_suffices(driver, variant.min_driver):
            out.append((variant, _too_old(driver, variant)))
    beyond = {variant.id for variant, _ in out}
    able = next((variant.id for variant in among if variant.id not in beyond), "")
    points = ((v, Point(v.stack, v.backend, v.attention, v.archs), rule) for v, rule in out)
    return [Excluded(point, variant.id, (rule,), able) for variant, point, rule in points]


def _too_old(driver: Driver, variant: Variant) -> Rule:
    reason = f"driver {driver} is too old: code of CUDA {variant.cuda} for these cards needs {variant.min_driver}"
    return Rule(id="driver-too-old", when=When(), reason=reason, source="CUDA release notes, table 3", mark="D")


def _unserved(driver: Driver, arch: Arch) -> Rule:
    first, last = driver_branches(arch)
    until = f" to {last} (the last is unverified)" if last is not None else " on"
    reason = f"driver {driver} does not serve {arch}: branches {first or 'of old'}{until} do"
    source = "CUDA release notes, table 3; images/matrix/drivers.py"
    return Rule(id="driver-does-not-serve-it", when=When(), reason=reason, source=source, mark="U" if last else "D")


def _recommended(matrix: Matrix, pool: list[Variant], driver: Driver | None) -> list[Variant]:
    """Of each single arch the images of its list, or the best one; with ``driver`` the first it runs."""
    chosen: dict[str, Variant] = {}
    for text in matrix.archs:
        arch = parse_arch(text)
        among = [v for v in pool if v.archs == (arch,)]
        if (first := best(matrix, among, arch, driver)) is None:
            continue
        later = listed_below(matrix, among, arch, first) if driver is None else ()
        chosen |= {v.id: v for v in (first, *later)}
    return list(chosen.values())


def _serves(driver: Driver, asked: ArchList, among: Iterable[Variant]) -> bool:
    """Whether a driver serves the cards, and runs one of the images for them."""
    known = all(driver_supports(driver, arch) for arch in asked)
    return known and any(driver_suffices(driver, v.min_driver) for v in among)


def _speaks_of(matrix: Matrix, wanted: Selectors, excluded: Excluded) -> bool:
    """Whether the selectors other than archs allow a point."""
    point = excluded.point
    return (
        wanted.cuda in (None, matrix.stacks[point.stack].cuda)
        and wanted.attention in (None, point.attention)
        and (not wanted.only or any(fnmatchcase(excluded.id, glob) for glob in wanted.only))
    )


def _pool(variants: Variants, wanted: Selectors) -> list[Variant]:
    """The variants that the selectors allow, whatever their archs and drivers."""
    pool = list(variants.valid.values())
    if wanted.cuda is not None or wanted.attention is not None:
        pool = [v for v in pool if wanted.cuda in (None, v.cuda) and wanted.attention in (None, v.attention)]
    if wanted.only:
        pool = [v for v in pool if any(fnmatchcase(v.id, glob) for glob in wanted.only)]
    return pool


def _carrying(pool: Sequence[Variant], archs: ArchList) -> list[Variant]:
    """The variants with all of these archs. Those of a large matrix share a few lists, and each is looked into once:
    that is what keeps a question to a catalogue of 10,000 images short.
    """
    wanted = set(archs)
    lists: Mapping[int, ArchList] = {id(variant.archs): variant.archs for variant in pool}
    carrying = {key for key, listed in lists.items() if wanted <= set(listed)}
    return [variant for variant in pool if id(variant.archs) in carrying]
