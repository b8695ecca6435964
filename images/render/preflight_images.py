"""What an image tells of the others when it does not fit the card it is started on (preflight, in rootfs/)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from images.matrix import Arch, Matrix, Variant, Variants, parse_driver, ranking


def images_for_preflight(matrix: Matrix, variants: Variants) -> tuple[Variant, ...]:
    """Those that a card, or two different ones, may need; of several that cover the cards, the first is to be taken.

    For each pair of archs and each generation of drivers the one that `invoke cards` would choose; the image for the
    CPU last. Whether a stack is locked counts for nothing here: no image may depend on the lock of another.
    """
    answers = list(_answers(matrix, variants))
    chosen = {found.id: found for found, _ in answers}
    order = {identifier: place for place, identifier in enumerate(variants.valid)}

    def place(variant: Variant) -> tuple[object, ...]:
        # One that starts at a higher arch goes before: what serves 8.0 and 9.0 best is not what serves 7.5 and 9.0.
        *fit, others = ranking(matrix, variant.archs[0])(variant)
        return (*fit, -variant.archs[0].number, others, order[variant.id])

    ranked = _sorted(sorted(chosen.values(), key=place), _behind(answers, chosen))
    return (*ranked, *(variant for variant in variants.valid.values() if not variant.archs))


def _answers(matrix: Matrix, variants: Variants) -> Iterator[tuple[Variant, list[str]]]:
    """For one card and for two different ones, and each generation of drivers: the image to take, and all that run.

    One card before two, the newest drivers first.
    """
    cuda = [variant for variant in variants.valid.values() if variant.archs]
    singles = sorted({arch for variant in cuda for arch in variant.archs})
    floors = sorted({parse_driver(variant.min_driver) for variant in cuda if variant.min_driver}, reverse=True)
    questions: list[tuple[Arch, ...]] = [*((arch,) for arch in singles), *combinations(singles, 2)]
    for archs in (1, 2):
        for floor in floors:
            able = [variant for variant in cuda if variant.min_driver and parse_driver(variant.min_driver) <= floor]
            slow = {arch for arch in singles if _is_slow(matrix, able, arch)}
            for asked in (one for one in questions if len(one) == archs):
                covering = [variant for variant in able if set(asked) <= set(variant.archs)]
                found = min(covering, key=ranking(matrix, asked[0]), default=None)
                # Two cards with an image each do better than both with the slower server, unless each has just that.
                if found and (len(asked) == 1 or found.backend == "vllm" or slow >= set(asked)):
                    yield found, [variant.id for variant in covering]


def _is_slow(matrix: Matrix, able: list[Variant], arch: Arch) -> bool:
    """Whether a card of ``arch`` gets the slower server."""
    found = min((one for one in able if arch in one.archs), key=ranking(matrix, arch), default=None)
    return found is not None and found.backend != "vllm"


def _behind(answers: list[tuple[Variant, list[str]]], chosen: Mapping[str, Variant]) -> dict[str, set[str]]:
    """Image -> those that it must stand before. An answer that contradicts an earlier one counts for nothing."""
    behind: dict[str, set[str]] = {name: set() for name in chosen}
    for found, running in answers:
        others = [other for other in running if other in chosen and other != found.id]
        if not any(_stands_before(behind, other, found.id) for other in others):
            behind[found.id].update(others)
    return behind


def _stands_before(behind: Mapping[str, set[str]], first: str, second: str) -> bool:
    """Whether ``second`` is somewhere behind ``first``."""
    seen, left = set[str](), [first]
    while left:
        at = left.pop()
        if at == second:
            return True
        left += behind[at] - seen
        seen |= behind[at]
    return False


def _sorted(ranked: list[Variant], behind: Mapping[str, set[str]]) -> list[Variant]:
    """As ``ranked``, but each after those that must stand before it."""
    left, out = list(ranked), list[Variant]()
    while left:
        late = set().union(*(behind[variant.id] for variant in left))
        out.append(next(variant for variant in left if variant.id not in late))
        left.remove(out[-1])
    return out


def as_text(images: tuple[Variant, ...]) -> str:
    """As CARDSTOCK_IMAGES holds it: "TAG@OLDEST-DRIVER …", without "@" for the CPU."""
    return " ".join(f"{one.id}@{one.min_driver}" if one.min_driver else one.id for one in images)
