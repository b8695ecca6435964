"""What images weigh, held against their budgets of matrix.yaml: `invoke weigh`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.layers import Packed, Sizes, layer_names, total
from images.core import CardstockError, CheckFailed
from images.matrix import Budget, Matrix, budget_of
from images.render import LAYERS

if TYPE_CHECKING:
    from images.docker import Engine

# Layers as zstd by diff id; git does not keep it.
CACHE = "build/weighed.json"
HEADER = ("image", "zstd", "budget", "unpacked", "budget", "")
_LARGEST = 4
_MB = 1_000_000


@dataclass(frozen=True)
class Weighed:
    """An image: its bytes as zstd and ``unpacked``, its budget, and its largest layers as (name, bytes as zstd)."""

    variant_id: str
    zstd: int
    unpacked: int
    budget: Budget | None
    largest: tuple[tuple[str, int], ...]

    @property
    def over(self) -> str:
        """What is above the budget, in words; "" where nothing is, or where there is none."""
        if self.budget is None:
            return ""
        forms = (("as zstd", self.zstd, self.budget.zstd), ("unpacked", self.unpacked, self.budget.unpacked))
        said = [
            f"{size / _MB:.0f} MB {form}, {size / _MB - limit:.0f} above its {limit}"
            for form, size, limit in forms
            if size > limit * _MB
        ]
        return ", and ".join(said)


def weigh(engine: Engine, matrix: Matrix, root: Path, images: Mapping[str, str]) -> list[Weighed]:
    """Weigh ``images`` (id of a variant to a name that the engine has); a layer that was packed before is not again.

    Raises CardstockError for a name the engine has not, UsageError where the program zstd is missing.
    """
    sizes = Sizes(engine, root / CACHE, gzip=False)
    return [_weigh(engine, sizes, matrix, variant_id, name) for variant_id, name in images.items()]


def _weigh(engine: Engine, sizes: Sizes, matrix: Matrix, variant_id: str, reference: str) -> Weighed:
    facts = engine.inspect(reference)
    if facts is None:
        raise CardstockError(f"the engine has no image {reference}")
    layers = sizes.of(reference)
    names = layer_names(facts.labels.get(LAYERS, ""), facts.layers)
    names = names or {layer: f"layer {at}" for at, layer in enumerate(facts.layers, 1)}  # an older image
    whole = total(layers.values())
    largest = tuple(heaviest(layers, names))
    return Weighed(variant_id, whole.zstd, whole.tar, budget_of(matrix, variant_id), largest)


def heaviest(layers: Mapping[str, Packed], names: Mapping[str, str]) -> list[tuple[str, int]]:
    """The largest layers, as name and bytes as zstd; those of one name together."""
    found: dict[str, int] = {}
    for layer, packed in layers.items():
        found[names[layer]] = found.get(names[layer], 0) + packed.zstd
    return sorted(found.items(), key=lambda one: -one[1])[:_LARGEST]


def table_of(weighed: Iterable[Weighed]) -> list[list[str]]:
    """Rows under `HEADER`, in MB."""
    return [
        [
            one.variant_id,
            f"{one.zstd / _MB:.0f} MB",
            f"{one.budget.zstd} MB" if one.budget else "-",
            f"{one.unpacked / _MB:.0f} MB",
            f"{one.budget.unpacked} MB" if one.budget else "-",
            "too large" if one.over else "",
        ]
        for one in weighed
    ]


def hold(weighed: Iterable[Weighed], matrix: Matrix) -> None:
    """Raise CheckFailed where images are above their budgets: which, by how much, and their largest layers."""
    bad = [one for one in weighed if one.over]
    if not bad:
        return
    index = next(at for at, budget in enumerate(matrix.sizes) if budget == bad[0].budget)
    raise CheckFailed(
        "an image is too large: " + "; ".join(f"{one.variant_id}: {one.over}" for one in bad),
        cause="its largest layers, as zstd: " + "; ".join(map(_largest, bad)),
        do="./inv bench sizes --by package says what is in them. What no server needs goes into `unused` or "
        "`stand_ins` of matrix.yaml; a budget is raised with the reason in the commit",
        where=matrix.where("sizes", index),
    )


def _largest(one: Weighed) -> str:
    return f"{one.variant_id}: " + ", ".join(f"{name} {size / _MB:.0f} MB" for name, size in one.largest)
