"""What an image tells of the others when it does not fit the card it is started on (preflight, in rootfs/)."""

from __future__ import annotations

from itertools import combinations_with_replacement

from images.matrix import Matrix, Variant, Variants, parse_driver, rank


def images_for_preflight(matrix: Matrix, variants: Variants) -> tuple[Variant, ...]:
    """Those that a card, or two different ones, may need; of several that cover the cards, the first is to be taken.

    For each pair of archs and each generation of drivers the one that `invoke cards` would choose; the image for the
    CPU last. Whether a stack is locked counts for nothing here: no image may depend on the lock of another.
    """
    order = {identifier: place for place, identifier in enumerate(variants.valid)}
    cuda = [variant for variant in variants.valid.values() if variant.archs]
    floors = sorted({parse_driver(variant.min_driver) for variant in cuda if variant.min_driver})
    chosen: dict[str, Variant] = {}
    for floor in floors:
        able = [variant for variant in cuda if variant.min_driver and parse_driver(variant.min_driver) <= floor]
        singles = sorted({arch for variant in able for arch in variant.archs})
        for pair in combinations_with_replacement(singles, 2):
            covering = [variant for variant in able if set(pair) <= set(variant.archs)]
            found = min(covering, key=lambda variant: rank(matrix, variant, pair[0]), default=None)
            # Two cards with an image each do better than both with the slower server.
            if found and (pair[0] == pair[1] or found.backend == "vllm"):
                chosen[found.id] = found

    def place(variant: Variant) -> tuple[object, ...]:
        # One that starts at a higher arch goes before: what serves 8.0 and 9.0 best is not what serves 7.5 and 9.0.
        *fit, others = rank(matrix, variant, variant.archs[0])
        return (*fit, -variant.archs[0].number, others, order[variant.id])

    ranked = sorted(chosen.values(), key=place)
    return (*ranked, *(variant for variant in variants.valid.values() if not variant.archs))


def as_text(images: tuple[Variant, ...]) -> str:
    """As CARDSTOCK_IMAGES holds it: "TAG@OLDEST-DRIVER …", without "@" for the CPU."""
    return " ".join(f"{one.id}@{one.min_driver}" if one.min_driver else one.id for one in images)
