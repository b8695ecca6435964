"""From selectors to the variants to build; axes left open take the recommended value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from images.core import NoImageFits, NothingSelected, UsageError, closest
from images.matrix.arch import Arch, parse_arch
from images.matrix.model import ATTENTIONS, Attention, Matrix
from images.matrix.rules import Judge
from images.matrix.variants import Excluded, Point, Variant, Variants, backend_of, point_id

ArchList = tuple[Arch, ...]


@dataclass(frozen=True)
class Selectors:
    """What the user named; empty means open. ``archs`` holds one arch list per image wanted."""

    archs: tuple[ArchList, ...] = ()
    cuda: str | None = None
    attention: Attention | None = None
    only: tuple[str, ...] = ()
    all: bool = False


def read_selectors(
    matrix: Matrix,
    archs: Iterable[str] = (),
    cuda: str | None = None,
    attention: str | None = None,
    only: Iterable[str] = (),
    every: bool = False,
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
    return Selectors(lists, cuda, attention, tuple(only), every)


def select(matrix: Matrix, variants: Variants, wanted: Selectors) -> tuple[Variant, ...]:
    """The chosen variants, in the matrix's order.

    Raises NoImageFits when a rule excludes all that was asked for (with the rule, its source and the nearest variant),
    NothingSelected when the words match nothing.
    """
    pool = list(variants.valid.values())
    if wanted.cuda is not None or wanted.attention is not None:
        pool = [v for v in pool if _stack_and_attention_match(v, wanted)]
    if wanted.only:
        pool = [v for v in pool if any(fnmatchcase(v.id, glob) for glob in wanted.only)]
        if not pool:
            raise _nothing(variants, wanted)
    if not wanted.archs:
        chosen = pool if wanted.all or wanted.only else _recommended(matrix, pool, wanted)
        if not chosen:
            raise _nothing(variants, wanted)
        return tuple(chosen)
    ids: dict[str, Variant] = {}
    for asked in wanted.archs:
        archs = _stand_in(matrix, asked, wanted)
        matching = _carrying(pool, archs)
        if not wanted.all and not wanted.only:
            matching = _best(matrix, matching, archs)
        if not matching:
            raise _no_image(matrix, variants, asked, archs, wanted)
        ids |= {v.id: v for v in matching}
    return tuple(v for v in variants.valid.values() if v.id in ids)


def explain(matrix: Matrix, variants: Variants, wanted: Selectors) -> tuple[Excluded, ...]:
    """Every excluded point that the selectors speak of, in the matrix's order."""
    judge = Judge(matrix)
    listed, foreign = [], []
    for asked in wanted.archs:
        # An arch of no image of its own (6.1, 8.7) is not among the points: judge it as if it were.
        covering = _covering_list(matrix, asked)
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


def _recommended(matrix: Matrix, pool: list[Variant], wanted: Selectors) -> list[Variant]:
    """No arch said: the best image of each single arch."""
    chosen: dict[str, Variant] = {}
    for text in matrix.archs:
        archs = (parse_arch(text),)
        chosen |= {v.id: v for v in _best(matrix, [v for v in pool if v.archs == archs], archs)}
    return list(chosen.values())


def _best(matrix: Matrix, among: list[Variant], archs: ArchList) -> list[Variant]:
    """The one of variants that cover these archs that the recommendations put first; the lowest arch decides.

    Of several, the one for just these archs, or with the fewest others.
    """
    return [min(among, key=lambda variant: rank(matrix, variant, archs[0]))] if among else []


def rank(matrix: Matrix, variant: Variant, lowest: Arch) -> tuple[bool, bool, bool, int]:
    """How well an image suits cards of which ``lowest`` is the oldest arch; the least is the best.

    First the stack that is recommended for that arch, then the attention that is recommended, then vLLM before the
    slower server on transformers, then the image with the fewest other archs.
    """
    choice = matrix.recommended.archs.get(lowest.capability)
    recommended = choice is not None and variant.stack == choice.stack
    attention = choice.attention if choice and recommended else matrix.recommended.stacks[variant.stack]
    return (
        not recommended,
        variant.attention != attention,
        variant.backend == "transformers",
        len(variant.archs),
    )


def _covering_list(matrix: Matrix, asked: ArchList) -> ArchList:
    """The arch list whose image serves these cards: 12.1 is served by 12.0, 10.3 by 10.0."""
    listed = [parse_arch(text) for text in matrix.archs]
    out = set()
    for arch in asked:
        below = [one for one in listed if one.runs_on(arch)]
        out.add(max(below) if below else arch)
    return tuple(sorted(out))


def _stand_in(matrix: Matrix, asked: ArchList, wanted: Selectors) -> ArchList:
    """As `_covering_list`, but only where no rule forbids the card itself (8.7 could run 8.6 code, yet must not)."""
    foreign = tuple(arch for arch in asked if arch.capability not in matrix.archs)
    if foreign:
        judged = _judged(matrix, Judge(matrix), foreign, wanted)
        tried = sum(1 for _ in _candidate_points(matrix, foreign, wanted))
        if len(judged) == tried:
            raise _refused(matrix, asked, judged)
    return _covering_list(matrix, asked)


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


def _no_image(matrix: Matrix, variants: Variants, asked: ArchList, archs: ArchList, wanted: Selectors) -> Exception:
    listed = [e for e in explain(matrix, variants, wanted) if e.point.archs == archs]
    if listed:
        return _refused(matrix, asked, listed)
    lists = sorted({" ".join(map(str, v.archs)) for v in variants.valid.values() if v.archs})
    return NothingSelected(
        f"no image is built for {' and '.join(map(str, asked))} together",
        cause="images are built for single archs and for the families of matrix.yaml",
        do=f"ask for one image each (--arch A --arch B), or for one of: {'; '.join(lists)}",
        where=matrix.where("families"),
    )


def _refused(matrix: Matrix, asked: ArchList, excluded: list[Excluded]) -> NoImageFits:
    """The rule that excludes most of the points speaks, at the recommended stack's point; the others are counted.

    One written in matrix.yaml says more than one that follows from a stack's list of archs.
    """
    written = {rule.id for rule in matrix.exclude}
    counts = Counter(rule.id for e in excluded for rule in e.rules if rule.id in written)
    counts = counts or Counter(rule.id for e in excluded for rule in e.rules)
    governing = counts.most_common(1)[0][0]
    choice = matrix.recommended.archs.get(asked[0].capability)

    def rank(e: Excluded) -> tuple[bool, bool, bool]:
        spoken = all(rule.id != governing for rule in e.rules)
        return (spoken, not e.nearest, choice is None or e.point.stack != choice.stack)

    hinted = min(excluded, key=rank)
    rule = next((rule for rule in hinted.rules if rule.id == governing), hinted.rules[0])
    others = f" (and {len(excluded) - 1} more; see invoke explain)" if len(excluded) > 1 else ""
    do = f"take {hinted.nearest} instead: ./inv build --only '{hinted.nearest}'" if hinted.nearest else _help(asked)
    return NoImageFits(
        f"no image for {' '.join(map(str, asked))}: {hinted.id} is excluded by the rule {rule.id}{others}",
        cause=rule.reason,
        do=do,
        where=f"[{rule.mark}] {rule.source}",
    )


def _help(asked: ArchList) -> str:
    """For cards that no stack serves."""
    if any(arch.capability in ("5.3", "6.2", "7.2", "8.7", "11.0") for arch in asked):
        return "use NVIDIA's Jetson containers for this module, or another card"
    return "llama.cpp runs Qwen2.5-VL on older cards (its GGUF form); or use the cpu image: ./inv build --only 'cpu*'"


def _nothing(variants: Variants, wanted: Selectors) -> NothingSelected:
    said = " ".join(wanted.only) or "these selectors"
    ids = list(variants.valid)
    close = closest(wanted.only[0], ids) if wanted.only else ""
    return NothingSelected(
        f"nothing is selected by {said}",
        do=f"nearest id: {close}. All ids: ./inv plan --all" if close else "see all ids with: ./inv plan --all",
    )
