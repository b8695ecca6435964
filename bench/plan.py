"""`invoke bench plan`: how long plan and explain take, on this matrix and on a generated one of 10,000 points."""

from __future__ import annotations

import json
from collections.abc import Iterable

import yaml

from bench.frame import bench, medians
from bench.record import Row
from images.matrix import Matrix, Selectors, excluded_json, explain, make_variants, parse_matrix, select, variant_json
from images.render import Checkout, lock_states

POINTS = 10_000


def large_matrix(text: str, wanted: int = POINTS) -> Matrix:
    """A matrix of at least ``wanted`` points: the stacks of ``text`` again and again under other names."""
    data = yaml.safe_load(text)
    stacks, defaults = dict(data["stacks"]), dict(data["recommended"]["stacks"])
    lists = len(data["archs"]) + len(data["families"])
    copies = wanted // ((lists - 1) * len(data["attention"]) * (len(stacks) - 1)) + 1
    for copy in range(copies):
        for name, stack in stacks.items():
            if stack["cuda"]:
                data["stacks"][f"{name}-{copy}"] = stack
                data["recommended"]["stacks"][f"{name}-{copy}"] = defaults[name]
    return parse_matrix(yaml.safe_dump(data, sort_keys=False), "generated.yaml")


def _plan(matrix: Matrix) -> str:
    chosen = select(matrix, make_variants(matrix), Selectors(all=True))
    return json.dumps([variant_json("image", variant, "locked", None) for variant in chosen])


def _explain(matrix: Matrix) -> str:
    return json.dumps([excluded_json(e) for e in explain(matrix, make_variants(matrix), Selectors(all=True))])


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("plan")
    def rows() -> Iterable[Row]:
        matrix = checkout.matrix()
        large = large_matrix((checkout.root / "matrix.yaml").read_text(encoding="utf-8"))
        sizes = {}
        for name, one in (("this matrix", matrix), ("generated", large)):
            variants = make_variants(one)
            sizes[name] = len(variants.valid) + len(variants.excluded)
        taken = medians(
            {
                "read matrix.yaml": checkout.matrix,
                "lock states": lambda: lock_states(matrix, checkout.locks),
                "plan, this matrix": lambda: _plan(matrix),
                "explain, this matrix": lambda: _explain(matrix),
                "plan, generated": lambda: _plan(large),
                "explain, generated": lambda: _explain(large),
            }
        )
        limit = 1.0  # "well under a second"
        yield Row("plan", "read and check matrix.yaml", taken["read matrix.yaml"], limit, "s", "limit")
        yield Row("plan", "states of all locks", taken["lock states"], limit, "s", "limit")
        for name, count in sizes.items():
            for command in ("plan", "explain"):
                measured = f"{command} --all --json, {name}: {count} points"
                shown = command == "plan"
                yield Row("plan", measured, taken[f"{command}, {name}"], limit, "s", "limit", headline=shown)
